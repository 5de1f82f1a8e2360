//go:build linux

package sandbox

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestStatusAndMountsAreParsed(t *testing.T) {
	capabilities, seccomp := parseStatus("Name:\tbash\nCapPrm:\t0000000000000001\nCapEff:\t000001fffeffffff\nSeccomp:\t2\nSeccomp_filters:\t1\n")
	assert.Equal(t, uint64(0x1fffeffffff), capabilities)
	assert.Equal(t, 2, seccomp)

	// As in a container of Docker, and as on a machine, where the second line is systemd's.
	assert.Equal(t, []string{"/proc/bus", "/proc/kcore"}, parseMasked(`571 570 0:60 / /proc rw,nosuid - proc proc rw
30 22 0:28 / /proc/sys/fs/binfmt_misc rw,relatime shared:14 - autofs systemd-1 rw
600 571 0:60 /bus /proc/bus ro,nosuid - proc proc rw
601 571 0:65 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
602 570 0:66 / /processes rw - tmpfs tmpfs rw
`))
}

func TestOnlyStagesWithADescriptorAreStages(t *testing.T) {
	for value, want := range map[string]bool{
		"init:3": true, "probe:4": true, "enter:17": true,
		"": false, "init": false, "init:": false, "init:x": false, "init:2": false, "else:3": false, "pid:[4026531836]": false,
	} {
		_, _, ok := parseStage(value)
		assert.Equal(t, want, ok, value)
	}
}
