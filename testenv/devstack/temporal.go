package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	tlog "go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/metrics"
	sqlite "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"
	"google.golang.org/protobuf/types/known/durationpb"
)

const (
	clusterName = "longalign"
	// retention is how long closed runs stay in the UI. A laptop's studies are few; a month of them is no burden.
	retention = 30 * 24 * time.Hour
)

// searchAttributes are what runs are found by in the UI; each a keyword.
var searchAttributes = []string{"experiment", "stage", "method", "model"}

type temporalConfig struct {
	db, log, logLevel string
	namespace         string
	port, uiPort      int
	headless          bool
}

// temporalServer is a running server with its UI.
type temporalServer struct {
	temporalConfig
	server temporal.Server
	ui     *uiserver.Server
}

// startTemporal starts the server and its UI; ready waits until they answer.
func startTemporal(ctx context.Context, c temporalConfig) (*temporalServer, error) {
	if err := prepareDatabase(c); err != nil {
		return nil, err
	}
	conf, err := c.serverConfig()
	if err != nil {
		return nil, err
	}
	hosts := map[primitives.ServiceName]static.Hosts{}
	for name, service := range conf.Services {
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(loopback(service.RPC.GRPCPort))
	}
	logger := tlog.NewZapLogger(tlog.BuildZapLogger(tlog.Config{Level: c.logLevel, OutputFile: c.log}))
	server, err := temporal.NewServer(
		temporal.WithConfig(conf),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		temporal.WithCustomMetricsHandler(metrics.NoopMetricsHandler),
		temporal.WithDynamicConfigClient(dynamicConfig()),
	)
	if err != nil {
		return nil, fmt.Errorf("set up Temporal: %w", err)
	}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start Temporal: %w; see %s", err, c.log)
	}
	s := &temporalServer{temporalConfig: c, server: server}
	if !c.headless {
		s.ui = uiserver.NewServer(uioptions.WithConfigProvider(&uiconfig.Config{
			Host: "127.0.0.1", Port: c.uiPort, TemporalGRPCAddress: loopback(c.port), DefaultNamespace: c.namespace,
			EnableUI: true, HideLogs: true, DisableNewsFetch: true,
			CORS: uiconfig.CORS{CookieInsecure: true}, // plain http on the loopback interface
		}))
		go s.ui.Start() //nolint:errcheck // reports only http.ErrServerClosed; ready says when it does not answer
	}
	return s, nil
}

// serverConfig is a single-node cluster on the loopback interface over one SQLite file.
func (c temporalConfig) serverConfig() (*config.Config, error) {
	sql := sqlConfig(c.db)
	conf := &config.Config{
		Persistence: config.Persistence{
			DefaultStore: "sqlite", VisibilityStore: "sqlite", NumHistoryShards: 1,
			DataStores: map[string]config.DataStore{"sqlite": {SQL: &sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10, MasterClusterName: clusterName, CurrentClusterName: clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{clusterName: {
				Enabled: true, InitialFailoverVersion: 1, RPCAddress: loopback(c.port),
			}},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		PublicClient:        config.PublicClient{HostPort: loopback(c.port)},
		Services:            map[string]config.Service{},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: "disabled"},
			Visibility: config.VisibilityArchival{State: "disabled"},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: "disabled"},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: "disabled"},
		}},
	}
	conf.Global.Membership.MaxJoinDuration = 30 * time.Second
	conf.Global.Membership.BroadcastAddress = "127.0.0.1"
	for _, name := range []primitives.ServiceName{
		primitives.FrontendService, primitives.HistoryService, primitives.MatchingService, primitives.WorkerService,
	} {
		port := c.port
		if name != primitives.FrontendService {
			var err error
			if port, err = freePort(); err != nil {
				return nil, fmt.Errorf("find a port for Temporal's %s service: %w", name, err)
			}
		}
		conf.Services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: "127.0.0.1"}}
	}
	return conf, nil
}

// dynamicConfig sizes a server made for fleets down to one machine and one user.
func dynamicConfig() dynamicconfig.Client {
	return dynamicconfig.StaticClient{
		dynamicconfig.EnableServerVersionCheck.Key():                     false, // it would call out
		dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key():      true,
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 100,
		dynamicconfig.FrontendPersistenceMaxQPS.Key():                    10_000,
		dynamicconfig.HistoryPersistenceMaxQPS.Key():                     45_000,
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key():                 8_096,
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():           1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key():          1,
	}
}

// sqlConfig opens a database so that a committed transaction survives a power cut (synchronous 2 is FULL).
func sqlConfig(file string) config.SQL {
	return config.SQL{
		PluginName:        sqlite.PluginName,
		DatabaseName:      file,
		ConnectAttributes: map[string]string{"mode": "rwc", "journal_mode": "wal", "synchronous": "2"},
	}
}

// prepareDatabase creates the database with its schema, and the namespace. The schema is a hundred statements, so it is
// built aside and renamed: a kill in between leaves no half-made database that no later start could use.
func prepareDatabase(c temporalConfig) error {
	if _, err := os.Stat(c.db); errors.Is(err, fs.ErrNotExist) {
		aside := c.db + ".new"
		for _, suffix := range []string{"", "-wal", "-shm"} {
			if err := os.Remove(aside + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove an unfinished database: %w", err)
			}
		}
		sql := sqlConfig(aside)
		sql.ConnectAttributes["journal_mode"] = "delete" // one file to rename
		if err := sqliteschema.SetupSchema(&sql); err != nil {
			return fmt.Errorf("create the schema of %s: %w", aside, err)
		}
		if err := os.Chmod(aside, 0o600); err != nil {
			return fmt.Errorf("protect the database: %w", err)
		}
		if err := os.Rename(aside, c.db); err != nil {
			return fmt.Errorf("put the database in place: %w", err)
		}
	} else if err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	attributes := map[string]enumspb.IndexedValueType{}
	for _, name := range searchAttributes {
		attributes[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
	}
	namespace, err := sqliteschema.NewNamespaceConfig(clusterName, c.namespace, false, attributes)
	if err != nil {
		return fmt.Errorf("describe namespace %s: %w", c.namespace, err)
	}
	namespace.Detail.Config.Retention = durationpb.New(retention)
	sql := sqlConfig(c.db)
	if err := sqliteschema.CreateNamespaces(&sql, namespace); err != nil {
		return fmt.Errorf("create namespace %s in %s: %w", c.namespace, c.db, err)
	}
	return nil
}

// ready waits until the frontend answers for the namespace, its search attributes are there and the UI serves pages.
func (s *temporalServer) ready(ctx context.Context) error {
	c, err := client.NewLazyClient(client.Options{
		HostPort: loopback(s.port), Namespace: s.namespace, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return fmt.Errorf("connect to Temporal: %w", err)
	}
	defer c.Close()
	err = poll(ctx, func(ctx context.Context) error {
		if _, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: s.namespace}); err != nil {
			return err
		}
		return s.ensureSearchAttributes(ctx, c)
	})
	if err != nil {
		return fmt.Errorf("wait for Temporal at %s: %w", loopback(s.port), err)
	}
	if s.headless {
		return nil
	}
	// The UI's own health page answers before it has reached the server; a page about the namespace does not.
	page := "http://" + loopback(s.uiPort) + "/api/v1/namespaces/" + url.PathEscape(s.namespace)
	if err := poll(ctx, func(ctx context.Context) error { return expectOK(ctx, page) }); err != nil {
		return fmt.Errorf("wait for the Temporal Web UI at %s: %w", loopback(s.uiPort), err)
	}
	return nil
}

// ensureSearchAttributes adds what a namespace made by an earlier devstack lacks.
func (s *temporalServer) ensureSearchAttributes(ctx context.Context, c client.Client) error {
	have, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: s.namespace})
	if err != nil {
		return err
	}
	missing := map[string]enumspb.IndexedValueType{}
	for _, name := range searchAttributes {
		if _, ok := have.CustomAttributes[name]; !ok {
			missing[name] = enumspb.INDEXED_VALUE_TYPE_KEYWORD
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: s.namespace, SearchAttributes: missing,
	})
	return err
}

func (s *temporalServer) stop() {
	if s.ui != nil {
		s.ui.Stop()
	}
	// Only reports what it could not stop, and the process ends next.
	_ = s.server.Stop()
}

// poll calls try until it succeeds or ctx ends, and then reports the last failure.
func poll(ctx context.Context, try func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := try(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func expectOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}
