package existing

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience bounds whatever a test waits for. Nothing here takes a tenth of it.
const patience = 60 * time.Second

// soon is a context for one thing.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	end := time.Now().Add(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !check() {
		require.Less(t, time.Now(), end, "not in time: %s", what)
		<-tick.C
	}
}
