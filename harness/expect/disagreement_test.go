package expect

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// disagrees isolates b and c, and expects that nothing is cut.
var disagrees = scene([]string{"a", "b", "c", "d"}, "    - name: isolated\n      apply:\n"+policy("b", "b", "")+policy("c", "c", "")+
	"      expect: {default: allow}\n")

func TestCellsThatDisagreeForOneReasonAreSaidOnce(t *testing.T) {
	_, err := Prepare(load(t, disagrees), two)
	var d *Disagreement
	require.ErrorAs(t, err, &d)
	assert.Equal(t, "x/a->x/b:80/TCP/IPv4/podIP", d.Connection.String())
	assert.Len(t, d.Others, 2)
	// One for each of the two policies.
	assert.Equal(t, 2, strings.Count(err.Error(), "the specification says deny by ingress"))
	assert.Contains(t, err.Error(), "x/a->x/b:80/TCP/IPv4/podIP, and 2 more: x/c->x/b:80/TCP/IPv4/podIP and x/d->x/b:80/TCP/IPv4/podIP: the table says allow")
	assert.Contains(t, err.Error(), "x/a->x/c:80/TCP/IPv4/podIP, and 2 more")
}
