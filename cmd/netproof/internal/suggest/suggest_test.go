package suggest_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/netproof/netproof/cmd/netproof/internal/suggest"
)

func TestAWordIsOfferedOnlyWhenItIsClose(t *testing.T) {
	candidates := []string{"calico", "cilium", "none"}
	for word, want := range map[string]string{
		"calcio": "calico", "Calico": "calico", "calic": "calico", "cillium": "cilium", "non": "none", "nnoe": "none",
		"flannel": "", "": "", "no": "", "x": "",
	} {
		assert.Equal(t, want, suggest.Nearest(word, candidates), word)
	}
	assert.Equal(t, " (did you mean cilium?)", suggest.DidYouMean("cilum", candidates))
	assert.Empty(t, suggest.DidYouMean("weave", candidates))
}
