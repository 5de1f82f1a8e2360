package podagent

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/netproof/netproof/harness/model"
	"github.com/netproof/netproof/probes"
	"github.com/netproof/netproof/probes/message"
)

// The environment variables that an agent reads.
const (
	// SettingsEnv holds the [Settings] as JSON.
	SettingsEnv = "NETPROOF_AGENT"
	// UIDEnv holds the UID of the pod, which is not known before there is a pod.
	UIDEnv = "NETPROOF_POD_UID"
)

// Settings are those of an agent, given when it starts. There is no secret among them.
type Settings struct {
	// Identity says whose agent it is. The UID of a pod comes from [UIDEnv].
	Identity probes.Identity `json:"identity"`
	// Ports to serve.
	Ports []model.Port `json:"ports,omitempty"`
	// Commitment to the key of the run: see [Commitment].
	Commitment string `json:"commitment"`
	// Nonce names the socket where the agent and those who ask it meet. Pods on a node's network share its names with
	// every process there, and who cannot guess a name cannot hold it first. Each call of Environment makes one where
	// there is none.
	Nonce string `json:"nonce"`
}

// Commitment is the digest of a run's key. An agent that knows it can tell the key when it is shown, and nobody can
// learn the key from it: so it may stand in a pod's specification, where many can read it.
func Commitment(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// Environment renders settings as environment variables, NAME=VALUE, for one container.
func (s Settings) Environment() []string {
	if s.Nonce == "" {
		s.Nonce = rand.Text()
	}
	text, _ := json.Marshal(s) // strings and numbers cannot fail
	return []string{SettingsEnv + "=" + string(text)}
}

// errNoSettings says that the program was not started by netproof.
var errNoSettings = errors.New("the agent is started by netproof in its probe pods: " + SettingsEnv + " is not set")

// ReadSettings reads the settings from the environment.
func ReadSettings(getenv func(string) string) (Settings, error) {
	var s Settings
	text := getenv(SettingsEnv)
	if text == "" {
		return s, errNoSettings
	}
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return s, fmt.Errorf("read %s: %w", SettingsEnv, err)
	}
	if uid := getenv(UIDEnv); uid != "" {
		s.Identity.UID = uid
	}
	if s.Identity.Endpoint == "" || s.Commitment == "" || s.Nonce == "" {
		return s, fmt.Errorf("read %s: identity, commitment or nonce is missing", SettingsEnv)
	}
	return s, message.CheckIdentity(s.Identity)
}

// socketName is where Serve and Bridge meet.
func (s Settings) socketName() string { return "@netproof-agent/" + s.Nonce }
