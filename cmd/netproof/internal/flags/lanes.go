package flags

import (
	"errors"

	"github.com/spf13/pflag"
)

// Lanes is the flag --lanes. Scenarios run one after another, so 1 is the only value.
type Lanes struct{}

var _ pflag.Value = Lanes{}

func (Lanes) String() string { return "1" }

// Type is what help texts show for the value.
func (Lanes) Type() string { return "number" }

// Set refuses everything but 1.
func (Lanes) Set(text string) error {
	if text != "1" {
		return errors.New("several lanes are not built yet; leave --lanes out or write --lanes 1")
	}
	return nil
}
