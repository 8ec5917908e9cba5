//go:build !noembedded

package embedded

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/sirupsen/logrus"
	"github.com/temporalio/ui-server/v2/server/config"
	"github.com/temporalio/ui-server/v2/server/cors"
	"github.com/temporalio/ui-server/v2/server/csrf"
	"github.com/temporalio/ui-server/v2/server/route"
	temporalui "github.com/temporalio/ui-server/v2/ui"

	"github.com/comfyd/comfyd/internal/logs"
)

// codecPath is relative: the page may be reached under another name or port than it is served at.
const codecPath = "/codec"

// uiDrain is how long a stop waits for a page that is being served.
const uiDrain = time.Second

// ui is the Temporal UI on a listener of ours. The module's own Start listens by itself, and a taken port there ends in
// a fatal log line, which is an exit.
type ui struct {
	http     *http.Server
	provider *config.ConfigProviderWithRefresh
	done     chan struct{}
}

func startUI(l net.Listener, temporal string, o Options, log logrus.FieldLogger) (*ui, error) {
	var codec config.Codec
	if o.Codec != nil {
		codec = config.Codec{Endpoint: codecPath, DefaultErrorMessage: "comfyd could not decrypt this; is its key still in COMFYD_PAYLOAD_KEYS?"}
	}
	provider, err := config.NewConfigProviderWithRefresh(&config.Config{
		TemporalGRPCAddress: temporal,
		DefaultNamespace:    o.Namespace,
		Codec:               codec,
		EnableUI:            true,
		HideLogs:            true,
		DisableNewsFetch:    true,                              // no calls to the outside from a page about private jobs
		CORS:                config.CORS{CookieInsecure: true}, // plain HTTP on the loopback interface
	})
	if err != nil {
		return nil, err
	}
	handler, err := uiHandler(provider)
	if err != nil {
		provider.Close()
		return nil, err
	}
	if o.Codec != nil {
		mux := http.NewServeMux()
		// Beside the UI's own handler, which wants a token of its pages in every POST.
		mux.Handle(codecPath+"/", http.NewCrossOriginProtection().Handler(o.Codec))
		mux.Handle("/", handler)
		handler = mux
	}
	errorLog := slog.NewLogLogger(logs.Slog(log.WithField("component", "temporal-ui")), slog.LevelWarn)
	u := &ui{
		http:     &http.Server{Handler: handler, ErrorLog: errorLog, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute},
		provider: provider, done: make(chan struct{}),
	}
	go func() {
		defer close(u.done)
		if err := u.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.WithError(err).Error("the Temporal UI ended; jobs go on without it")
		}
	}()
	return u, nil
}

// uiHandler puts the parts of the UI together in the order in which the module's own NewServer does.
func uiHandler(provider *config.ConfigProviderWithRefresh) (http.Handler, error) {
	assets, err := temporalui.Assets()
	if err != nil {
		return nil, err
	}
	assets, err = fs.Sub(assets, "local") // the other one is Temporal Cloud's
	if err != nil {
		return nil, err
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Use(middleware.Recover(), middleware.Gzip(), middleware.Secure(),
		cors.CORSMiddleware(cors.CORSConfig{
			AllowHeaders:     []string{echo.HeaderOrigin, echo.HeaderContentType, echo.HeaderAccept, echo.HeaderXCSRFToken, echo.HeaderAuthorization},
			AllowCredentials: true, ConfigProvider: provider,
		}),
		csrf.EnsureTokenCookie(false), middleware.CSRFWithConfig(csrf.MiddlewareConfig(provider, false)))
	e.Pre(route.PublicPath(""))
	route.SetHealthRoute(e)
	if err := route.SetAPIRoutes(e, provider, nil); err != nil {
		return nil, err
	}
	route.SetAuthRoutes(e, provider) // none, as no login is configured; the pages ask for it
	if err := route.SetUIRoutes(e, "", assets, provider); err != nil {
		return nil, err
	}
	route.SetRenderRoute(e, "/")
	return e, nil
}

func (u *ui) stop() {
	ctx, done := context.WithTimeout(context.Background(), uiDrain)
	defer done()
	if u.http.Shutdown(ctx) != nil {
		_ = u.http.Close() // a page that polls never ends by itself
	}
	u.provider.Close()
	<-u.done
}
