package catalog

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// each goes through the catalogues of all pools, in order of preference. It fails where nobody has published one.
func (d *Directory) each(ctx context.Context, f func(pool string, c *Catalog)) error {
	records, catalogs, err := d.load(ctx)
	if err != nil {
		return err
	}
	none := true
	for _, r := range records {
		for _, s := range r.Servers {
			if c := catalogs[s.CatalogRef]; c != nil {
				none = false
				f(r.Pool.Name, c)
			}
		}
	}
	if none {
		return ErrNoBackend
	}
	return nil
}

// Nodes are the node classes that the backends have, each with its pools.
func (d *Directory) Nodes(ctx context.Context) (map[string][]string, error) {
	found := map[string][]string{}
	err := d.each(ctx, func(pool string, c *Catalog) {
		for _, name := range c.names {
			note(found, name, pool)
		}
	})
	return found, err
}

// Node is one class as ComfyUI's /object_info has it, of the first pool that has it, without names of files that people
// have sent; nil where no backend has it, with the names that may have been meant.
func (d *Directory) Node(ctx context.Context, name string) (definition json.RawMessage, pools, near []string, err error) {
	found := map[string][]string{}
	err = d.each(ctx, func(pool string, c *Catalog) {
		if cl := c.classes[name]; cl != nil {
			note(found, name, pool)
			if definition == nil {
				definition = cl.definition()
			}
			return
		}
		near = append(near, nearest(name, c.names)...)
	})
	if err != nil || definition != nil {
		return definition, found[name], nil, err
	}
	slices.Sort(near)
	return nil, nil, nearest(name, slices.Compact(near)), nil
}

// Models are the files that ComfyUI's own loaders list, by folder of models/ and name, each with its pools. With a folder
// they are that one's alone, by its newer or its older name ("clip" for "text_encoders"); where there is none of that name,
// near are those that may have been meant.
func (d *Directory) Models(ctx context.Context, folder string) (found map[string]map[string][]string, near []string, err error) {
	found = map[string]map[string][]string{}
	names := map[string]string{}
	for _, label := range modelFolders {
		newer, older := folderNames(label)
		names[newer], found[newer] = newer, map[string][]string{}
		if older != "" {
			names[older] = newer
		}
	}
	err = d.each(ctx, func(pool string, c *Catalog) {
		for _, cl := range c.classes {
			for _, in := range cl.inputs {
				label := modelFolder(cl.name, in.name)
				if label == "" || !in.combo || !cl.plain {
					continue
				}
				newer, _ := folderNames(label)
				for name := range in.texts {
					if modelFile(name) || newer == "diffusers" { // others are made by the loader: "pixel_space"
						note(found[newer], name, pool)
					}
				}
			}
		}
	})
	if err != nil || folder == "" {
		return found, nil, err
	}
	newer, ok := names[folder]
	if !ok {
		return nil, nearest(folder, slices.Sorted(maps.Keys(names))), nil
	}
	return map[string]map[string][]string{newer: found[newer]}, nil, nil
}

// folderNames reads "text_encoders (or clip)".
func folderNames(label string) (newer, older string) {
	newer, older, _ = strings.Cut(strings.TrimSuffix(label, ")"), " (or ")
	return newer, older
}

func note(found map[string][]string, name, pool string) {
	if !slices.Contains(found[name], pool) {
		found[name] = append(found[name], pool)
	}
}
