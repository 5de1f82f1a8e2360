package wire

import (
	"bytes"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/netproof/netproof/probes"
)

// countingWriter counts how often it is written to.
type countingWriter struct {
	mu     sync.Mutex
	writes int
	all    bytes.Buffer
}

func (w *countingWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	return w.all.Write(b)
}

func (w *countingWriter) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

func TestLinesThatLingerAreWrittenTogether(t *testing.T) {
	w := &countingWriter{}
	l := newLineWriter(w, 50*time.Millisecond)
	const lines = 20
	for call := range int64(lines) {
		l.send(&reply{Call: call + 1, End: &end{}})
	}
	l.end()
	<-l.done
	require.NoError(t, l.err)
	assert.Equal(t, lines, bytes.Count(w.all.Bytes(), []byte("\n")))
	assert.LessOrEqual(t, w.count(), 2, "one, unless the first line was on its way already")
}

func TestResultsThatMayWaitAreWrittenWithTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &countingWriter{}
		l := newLineWriter(w, time.Millisecond)
		one := func(call int64) *reply { return &reply{Call: call, Responses: []probes.Response{{}}} }
		for range 20 {
			l.sendWithin(one(1), time.Hour)
		}
		time.Sleep(time.Minute)
		assert.Zero(t, w.count(), "nothing urges")
		l.send(&reply{Call: 1, End: &end{Count: 20}})
		time.Sleep(time.Second)
		assert.Equal(t, 1, w.count())

		time.Sleep(time.Hour)
		l.sendWithin(one(2), time.Minute)
		time.Sleep(time.Minute + time.Second)
		assert.Equal(t, 2, w.count(), "its own patience is over")

		l.sendWithin(one(3), time.Minute)
		l.end()
		<-l.done
		require.NoError(t, l.err)
		assert.Equal(t, 4, bytes.Count(w.all.Bytes(), []byte("\n")), "twenty results and their end are two lines; the last one goes with the end of the stream")
		time.Sleep(time.Minute) // the patience of the last one
	})
}
