//go:build !noembedded

package embedded

import (
	"net"
	"strconv"
	"time"

	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
)

const (
	storeName   = "sqlite"
	clusterName = "comfyd"
	// clusterID tells clusters apart that are joined to each other. This one never is.
	clusterID = "7a3e1c1e-6f0f-5d0c-9a3b-0c0f1d5e7233"
	// shards is fixed for the life of a database. There is one writer, SQLite, so more would only add queues.
	shards = 1
)

// servicePorts is how many ports [serverOptions] takes: the three services behind the frontend, and the frontend's HTTP.
const servicePorts = 4

// serverOptions puts the server together: the frontend on its own address, the three services behind it on ports of
// the loopback interface, static membership (no gossip between processes), SQLite for everything. By the frontend's
// HTTP the server itself starts and ends Nexus operations, of callers in other namespaces; nobody else uses it.
func serverOptions(db *database, frontend *net.TCPAddr, ports []int, logger *serverLogger) []temporal.ServerOption {
	address := reachable(frontend)
	services := map[string]config.Service{
		string(primitives.FrontendService): {RPC: config.RPC{GRPCPort: frontend.Port, BindOnIP: frontend.IP.String(), HTTPPort: ports[servicePorts-1]}},
	}
	hosts := map[primitives.ServiceName]static.Hosts{primitives.FrontendService: static.SingleLocalHost(address)}
	for i, name := range []primitives.ServiceName{primitives.HistoryService, primitives.MatchingService, primitives.WorkerService} {
		services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: ports[i], BindOnIP: loopback}}
		hosts[name] = static.SingleLocalHost(net.JoinHostPort(loopback, strconv.Itoa(ports[i])))
	}
	c := &config.Config{
		Services:    services,
		Persistence: db.persistence(),
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10, MasterClusterName: clusterName, CurrentClusterName: clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: address, ClusterID: clusterID},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		Archival: config.Archival{
			History: config.HistoryArchival{State: "disabled"}, Visibility: config.VisibilityArchival{State: "disabled"},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
		PublicClient: config.PublicClient{
			HostPort:     address,
			HTTPHostPort: reachable(&net.TCPAddr{IP: frontend.IP, Port: ports[servicePorts-1]}),
		},
	}
	// The server allows its services twice this time to start; a machine under load needs more than the default 15 s.
	c.Global.Membership = config.Membership{MaxJoinDuration: 30 * time.Second, BroadcastAddress: loopback}
	return []temporal.ServerOption{
		temporal.WithConfig(c),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		// Said aloud, for the server warns when it is left to the default: there is no authorization.
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
		temporal.WithDynamicConfigClient(dynamicConfig()),
	}
}

const (
	// Rates that are never reached, in place of defaults made for a shared cluster.
	pollRPS    = 5000
	requestRPS = 20000
	// resultWait bounds how late a client learns of an end that it waits for.
	resultWait = time.Second
	// pollWait is how long a worker's poll waits for a task: less than the heartbeat timeout of activities (5 s), with room
	// for the heartbeat that comes just before the worker falls silent.
	pollWait = 3 * time.Second
	// queueWorkers is how many tasks of a queue are worked on at once. They all end at SQLite's one writer.
	queueWorkers = 64
)

// dynamicConfig are the settings in which a server for one small machine differs from one for a cluster.
func dynamicConfig() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		// With one shard there is one queue of each kind, and each step of a workflow waits for its next poll: 20 a
		// second by default, which is 50 ms a step. The host's limit has to rise with the queue's: it follows the
		// persistence limit when unset, but a change of that one must not bring the waits back.
		dynamicconfig.TransferProcessorMaxPollRPS.Key():       pollRPS,
		dynamicconfig.TransferProcessorMaxPollHostRPS.Key():   pollRPS,
		dynamicconfig.TimerProcessorMaxPollRPS.Key():          pollRPS,
		dynamicconfig.TimerProcessorMaxPollHostRPS.Key():      pollRPS,
		dynamicconfig.VisibilityProcessorMaxPollRPS.Key():     pollRPS,
		dynamicconfig.VisibilityProcessorMaxPollHostRPS.Key(): pollRPS,
		dynamicconfig.OutboundProcessorMaxPollRPS.Key():       pollRPS,
		dynamicconfig.OutboundProcessorMaxPollHostRPS.Key():   pollRPS,

		// A deleted job is forgotten when the queue has noted that the job's end was worked on; every 30 s by default.
		dynamicconfig.TransferProcessorUpdateAckInterval.Key(): time.Second,

		// A poll that is open when the worker stops is ended by the server. Otherwise a task handed to it in that moment is
		// lost, and comes again after its timeout only: at the next start somebody would wait for it.
		dynamicconfig.EnableCancelWorkerPollsOnShutdown.Key(): true,

		// 512 each by default: half of all goroutines of an idle server.
		dynamicconfig.TransferProcessorSchedulerWorkerCount.Key():   queueWorkers,
		dynamicconfig.TimerProcessorSchedulerWorkerCount.Key():      queueWorkers,
		dynamicconfig.VisibilityProcessorSchedulerWorkerCount.Key(): queueWorkers,

		// A client that waits for a result is told of each change through a channel with room for one, and where two
		// changes come close together the second one, the end, is dropped (events.NotifierImpl in the server). It was
		// seen in 2 of 5,900 runs on two busy cores: the result came when the wait was renewed, after the default 20 s.
		dynamicconfig.HistoryLongPollExpirationInterval.Key(): resultWait,

		// A worker that is paused, or cut off without a word, leaves its polls open here, a minute by default, and each
		// takes one attempt with it. They end sooner than its heartbeats are missed, so that the next attempt of what
		// it did meets a worker that lives. The server's own workers, of which there are many, live and die with it.
		dynamicconfig.MatchingLongPollExpirationInterval.Key(): []dynamicconfig.ConstrainedValue{
			{Constraints: dynamicconfig.Constraints{Namespace: primitives.SystemLocalNamespace}, Value: time.Minute},
			{Value: pollWait},
		},

		// Priority is strict only within a partition; by default there are four of each queue. One is also faster
		// here: a query or a task never takes the way over another partition.
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
		// Tenants of one priority take turns, by the fairness key of their jobs.
		dynamicconfig.MatchingEnableFairness.Key(): true,

		// The only client is this process, and admission is the API's work. A request that the server turns away
		// costs a retry of a second or more.
		dynamicconfig.FrontendRPS.Key():                                  requestRPS,
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           requestRPS,
		dynamicconfig.FrontendPersistenceMaxQPS.Key():                    requestRPS,
		dynamicconfig.MatchingRPS.Key():                                  requestRPS,
		dynamicconfig.MatchingPersistenceMaxQPS.Key():                    requestRPS,
		dynamicconfig.HistoryRPS.Key():                                   requestRPS,
		dynamicconfig.HistoryPersistenceMaxQPS.Key():                     requestRPS,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 500, // lists of jobs; 10 a second by default

		// Room for the workflows that something happens to at the moment, not for the 128,000 of a cluster's host: one
		// that waits for its turn is read again from SQLite. With 2,000 entries a burst of 1,000 jobs took some 70 MiB more than with 400.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 256,
		// Kept for the replication to other clusters, of which there is none; 8 MiB by default.
		dynamicconfig.XDCCacheMaxSizeBytes.Key(): 64 << 10,

		// Where a stopped process (SIGSTOP, a laptop asleep) goes on, the detector takes the pause for a deadlock and
		// would put all 3,000 goroutines into the log.
		dynamicconfig.DeadlockDumpGoroutines.Key(): false,
	}
}
