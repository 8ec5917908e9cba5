//go:build !noembedded

package embedded

import (
	"context"
	"maps"
	"slices"
	"time"

	"go.temporal.io/api/enums/v1"
	"google.golang.org/protobuf/types/known/durationpb"

	persistencespb "go.temporal.io/server/api/persistence/v1"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence"
	"go.temporal.io/server/common/persistence/client"
	"go.temporal.io/server/common/persistence/serialization"
	"go.temporal.io/server/common/resolver"
	"go.temporal.io/server/common/searchattribute/sadefs"
	"go.temporal.io/server/common/telemetry"
	sqliteschema "go.temporal.io/server/schema/sqlite"
)

// prepareNamespace makes the namespace, and brings retention and search attributes of an existing one up to date. It
// does so in the database before the server runs: each of its services loads namespaces when it starts, so all of them
// know the attributes from the first request on. Registered through the running server, an attribute is unknown to some
// of them for a second or two, and workflows that use it fail to start.
func (d *database) prepareNamespace(ctx context.Context, o Options, logger *serverLogger) error {
	fresh, err := sqliteschema.NewNamespaceConfig(clusterName, o.Namespace, false, nil)
	if err != nil {
		return err
	}
	if err := sqliteschema.CreateNamespaces(d.sql, fresh); err != nil {
		return err
	}
	stored := d.persistence()
	serializer := serialization.NewSerializer()
	factory := client.FactoryProvider(client.NewFactoryParams{
		DataStoreFactory: client.DataStoreFactoryProvider(clusterName, resolver.NewNoopResolver(), &stored, nil, logger,
			metrics.NoopMetricsHandler, telemetry.NoopTracerProvider, serializer),
		Cfg: &stored, ClusterName: clusterName, MetricsHandler: metrics.NoopMetricsHandler, Logger: logger, Serializer: serializer,
	})
	defer factory.Close()
	manager, err := factory.NewMetadataManager()
	if err != nil {
		return err
	}
	defer manager.Close()

	have, err := manager.GetNamespace(ctx, &persistence.GetNamespaceRequest{Name: o.Namespace})
	if err != nil {
		return err
	}
	changed, err := configure(have.Namespace, o.Retention, o.SearchAttributes)
	if err != nil || !changed {
		return err
	}
	metadata, err := manager.GetMetadata(ctx)
	if err != nil {
		return err
	}
	have.Namespace.ConfigVersion++
	return manager.UpdateNamespace(ctx, &persistence.UpdateNamespaceRequest{
		Namespace: have.Namespace, IsGlobalNamespace: have.IsGlobalNamespace, NotificationVersion: metadata.NotificationVersion,
	})
}

// configure sets what is not as asked for, and tells whether there was anything.
func configure(n *persistencespb.NamespaceDetail, retention time.Duration, attributes map[string]enums.IndexedValueType) (changed bool, err error) {
	if n.Config.GetRetention().AsDuration() != retention {
		n.Config.Retention = durationpb.New(retention)
		changed = true
	}
	// In SQL, an attribute is a name for one of the columns that exist for its type.
	columns := sadefs.GetDBIndexSearchAttributes(nil).CustomSearchAttributes
	names := maps.Clone(n.Config.GetCustomSearchAttributeAliases()) // column -> attribute
	if names == nil {
		names = map[string]string{}
	}
	known := map[string]enums.IndexedValueType{}
	for column, name := range names {
		known[name] = columns[column]
	}
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		want := attributes[name]
		if have, ok := known[name]; ok {
			if have != want {
				return false, fail(BadOptions, nil, "search attribute %s of namespace %s is of type %s, and %s is needed: move temporal.db out of the data folder with its -wal and -shm files to start with no jobs", name, n.GetInfo().GetName(), have, want)
			}
			continue
		}
		column := freeColumn(columns, names, want)
		if column == "" {
			return false, fail(BadOptions, nil, "namespace %s has no room for search attribute %s: all columns of type %s are in use", n.GetInfo().GetName(), name, want)
		}
		names[column] = name
		changed = true
	}
	n.Config.CustomSearchAttributeAliases = names
	return changed, nil
}

func freeColumn(columns map[string]enums.IndexedValueType, used map[string]string, t enums.IndexedValueType) string {
	for _, column := range slices.Sorted(maps.Keys(columns)) {
		if _, taken := used[column]; columns[column] == t && !taken {
			return column
		}
	}
	return ""
}
