package catalog_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/backend"
	"github.com/comfyd/comfyd/comfy"
	"github.com/comfyd/comfyd/internal/catalog"
)

const savedImage = `{"nodes":[{"id":1,"type":"EmptyImage","widgets_values":[64]},
	{"id":2,"type":"SaveImage","inputs":[{"name":"images","type":"IMAGE","link":1}]}],"links":[[1,1,0,2,0,"IMAGE"]]}`

func TestDirectoryConverts(t *testing.T) {
	m := &memory{blobs: map[string][]byte{}}
	var refused *comfy.GraphError
	var unknown *comfy.Failure
	never := catalog.NewDirectory(m, nil)
	_, err := never.Convert(t.Context(), []byte(savedImage), backend.Want{})
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, comfy.BackendUnavailable, unknown.Code, "nobody has published anything")

	now := time.Now()
	p := &pool{is: backend.Pool{Name: "url", Kind: "url"}, servers: []backend.Server{
		{Name: "a", Healthy: true, Catalog: nodes("SaveOther"), CatalogAt: now}, {Name: "b", Healthy: true, Catalog: nodes("SaveImage"), CatalogAt: now},
	}}
	pub := publish(t, m, p)
	d := catalog.NewDirectory(m, nil)
	raw, err := d.Convert(t.Context(), []byte(savedImage), backend.Want{})
	require.NoError(t, err, "b has the nodes")
	g, err := comfy.ParseGraph(raw)
	require.NoError(t, err)
	require.Equal(t, "64", string(g.Nodes["1"].Inputs["width"]))
	require.Nil(t, d.Check(t.Context(), g, nil, backend.Want{}))

	_, err = d.Convert(t.Context(), []byte(strings.ReplaceAll(savedImage, "SaveImage", "SaveOthr")), backend.Want{})
	require.ErrorAs(t, err, &refused)
	require.Contains(t, refused.NodeErrors, "2")
	require.Contains(t, refused.Message, "did you mean")
	_, err = d.Convert(t.Context(), []byte(savedImage), backend.Want{Pool: "mars"})
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, comfy.InvalidWorkflow, unknown.Code)
	require.Contains(t, unknown.Message, "mars")

	asked := 0
	fresh := catalog.NewDirectory(m, func(ctx context.Context) error {
		asked++
		p.servers = []backend.Server{{Name: "a", Healthy: true, Catalog: nodes("SaveNew"), CatalogAt: now.Add(time.Second)}}
		return pub.Publish(ctx, true)
	})
	_, err = fresh.Convert(t.Context(), []byte(strings.ReplaceAll(savedImage, "SaveImage", "SaveNew")), backend.Want{})
	require.NoError(t, err, "the node has been installed since")
	require.Equal(t, 1, asked)

	publish(t, m, p, &pool{is: backend.Pool{Name: "local-x", Kind: "local"}, servers: []backend.Server{{Name: "c", Healthy: true, Catalog: nodes("SaveOnlyHere"), CatalogAt: now}}})
	only := []byte(strings.ReplaceAll(savedImage, "SaveImage", "SaveOnlyHere"))
	_, err = catalog.NewDirectory(m, nil).Convert(t.Context(), only, backend.Want{})
	require.NoError(t, err)
	_, err = catalog.NewDirectory(m, nil).Convert(t.Context(), only, backend.Want{Pool: "url"})
	require.ErrorAs(t, err, &refused, "not with what another pool has")

	m.down = errors.New("the store is away")
	_, err = catalog.NewDirectory(m, nil).Convert(t.Context(), []byte(savedImage), backend.Want{})
	require.ErrorAs(t, err, &unknown)
	require.Equal(t, comfy.BackendUnavailable, unknown.Code)
}
