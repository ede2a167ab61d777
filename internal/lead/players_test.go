//go:build unix

package lead_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/fencepost/fencepost/catalog"
	"github.com/fencepost/fencepost/catalog/driver"
	"github.com/fencepost/fencepost/catalog/sqlite"
	"github.com/fencepost/fencepost/exitcodes"
	heldby "github.com/fencepost/fencepost/internal/lead"
	"github.com/fencepost/fencepost/leader"
)

// plays plays a part that a test has this binary play, if args name one.
func plays(args []string) bool {
	switch args[0] {
	case "notify": // says something to the service manager
		must(exitcodes.Notify(args[1:]...))
	case "serve":
		serve(args[1])
	case "haproxy":
		must(steer(args[1], args[2], args[3]))
	case "blind":
		blind(args[1], args[2:])
	default:
		return false
	}
	return true
}

// blind is lead over a store that wakes nobody: it hears of a successor only when it
// asks.
func blind(path string, command []string) {
	holds(path, command, func(s driver.Store) driver.Store { return struct{ driver.Store }{s} },
		leader.Config{Lease: time.Minute, Catalog: catalog.Config{Generation: 1, PollInterval: time.Hour}})
}

func holds(path string, command []string, as func(driver.Store) driver.Store, cfg leader.Config) {
	exitcodes.Main(func(ctx context.Context) error {
		store, err := sqlite.Open(path, sqlite.Config{})
		if err != nil {
			return err
		}
		defer store.Close()
		return heldby.Run(ctx, as(store), heldby.Config{
			Command: command, Keeper: heldby.Program{Path: os.Args[0], Args: []string{os.Args[0], "lead-keeper"}}, Lead: cfg,
		})
	}, exitcodes.Options{Name: "holds"})
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// serve answers requests with the token until SIGTERM, and finishes those under way.
func serve(address string) {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(5 * time.Millisecond)
		_, _ = io.WriteString(w, os.Getenv("FENCEPOST_TOKEN"))
	})}
	go func() {
		<-stop.Done()
		_ = server.Shutdown(context.Background())
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		must(err)
	}
}

// holding sets the variable by which HAProxy holds requests back.
const holding = "experimental-mode on; set var proc.hold int(%d)"

// steer has HAProxy, by its socket, hold requests back and finish those under way,
// or resume with the server at address.
func steer(what, socket, address string) error {
	if what == "resume" {
		host, port, err := net.SplitHostPort(address)
		if err == nil {
			_, err = tell(socket, fmt.Sprintf("set server app/holder addr %s port %s", host, port))
		}
		if err == nil {
			_, err = tell(socket, fmt.Sprintf(holding, 0))
		}
		return err
	}
	if _, err := tell(socket, fmt.Sprintf(holding, 1)); err != nil {
		return err
	}
	for {
		stat, err := tell(socket, "show stat")
		if err != nil || underWay(stat) == "0" {
			return err
		}
		<-time.After(5 * time.Millisecond)
	}
}

// underWay is the number of requests that a server has.
func underWay(stat string) string {
	for line := range strings.Lines(stat) {
		if fields := strings.Split(line, ","); len(fields) > 4 && fields[0] == "app" && fields[1] == "BACKEND" {
			return fields[4]
		}
	}
	return "unknown"
}

func tell(socket, command string) (string, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return "", err
	}
	said, err := io.ReadAll(conn)
	return string(said), err
}
