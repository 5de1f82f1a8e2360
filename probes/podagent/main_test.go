//go:build linux

package podagent

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// peerEnv makes the test binary hold the socket of this name, or connect to it, as somebody else.
const peerEnv = "PODAGENT_TEST_PEER"

func TestMain(m *testing.M) {
	if do := os.Getenv(peerEnv); do != "" {
		if err := playPeer(do); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// playPeer is the life of the process that is somebody else.
func playPeer(do string) error {
	verb, name, _ := strings.Cut(do, " ")
	switch verb {
	case "hold":
		l, err := net.Listen("unix", name)
		if err != nil {
			return err
		}
		fmt.Println("held")
		for {
			if _, err := l.Accept(); err != nil {
				return err
			}
		}
	case "bridge":
		s := Settings{Nonce: strings.TrimPrefix(name, "@netproof-agent/")}
		fmt.Println(Bridge(context.Background(), s, strings.NewReader(""), io.Discard))
		return nil
	case "ask":
		conn, err := dial(context.Background(), name)
		if err != nil {
			return err
		}
		n, _ := io.Copy(io.Discard, conn)
		fmt.Printf("closed after %d bytes\n", n)
		return nil
	}
	return fmt.Errorf("unknown %q", verb)
}
