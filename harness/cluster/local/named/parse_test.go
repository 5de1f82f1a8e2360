//go:build linux

package named

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOnlyListeningSocketsOfTheUserAreNames(t *testing.T) {
	text := `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 20001 @netproof/1000/two
0000000000000000: 00000002 00000000 00010000 0001 01 20002 @netproof/1000/one
0000000000000000: 00000003 00000000 00000000 0001 03 20003 @netproof/1000/one
0000000000000000: 00000003 00000000 00000000 0001 03 20004 @netproof/1000/gone
0000000000000000: 00000002 00000000 00010000 0001 01 20005 @netproof/100/other
0000000000000000: 00000002 00000000 00010000 0001 01 20006 @netproof/1000/Not_A_Name
0000000000000000: 00000002 00000000 00010000 0001 01 20007 /netproof/1000/file
0000000000000000: 00000002 00000000 00000000 0002 01 20008
0000000000000000: 00000002 00000000 00010000 0001 01 20009 @netproof/1000/with space
`
	assert.Equal(t, []string{"one", "two"}, parseSockets(text, 1000))
	assert.Empty(t, parseSockets(text, 0))
}

func TestATailKeepsTheEnd(t *testing.T) {
	var all bytes.Buffer
	var last tail
	assert.Empty(t, last.String())
	for i := range 5000 {
		line := strings.Repeat(string(rune('a'+i%26)), i%100)
		all.WriteString(line)
		_, err := last.Write([]byte(line))
		assert.NoError(t, err)
		assert.LessOrEqual(t, len(last.buf), 2*tailSize)
	}
	assert.Equal(t, tailSize, len(last.Bytes()))
	assert.True(t, bytes.HasSuffix(all.Bytes(), last.Bytes()))
}
