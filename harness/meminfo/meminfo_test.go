package meminfo

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMemoryThatIsLeftIsRead(t *testing.T) {
	assert.EqualValues(t, 23170048*1024, Parse("MemTotal:       24689060 kB\nMemAvailable:   23170048 kB\nBuffers: 3 kB\n"))
	for _, text := range []string{"", "MemTotal: 1 kB\n", "MemAvailable: many kB\n", "MemAvailable: 5 MB\n", "MemAvailable: 99999999999999999999 kB\n"} {
		assert.Zero(t, Parse(text), text)
	}
}
