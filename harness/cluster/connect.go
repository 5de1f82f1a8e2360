package cluster

import (
	"fmt"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Connect makes a client without a rate limit of its own: the API server has one.
func Connect(cfg *rest.Config) (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(unlimited(cfg))
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return client, nil
}

// ConnectMetadata is [Connect] for objects of any kind, of which it reads the metadata alone.
func ConnectMetadata(cfg *rest.Config) (metadata.Interface, error) {
	client, err := metadata.NewForConfig(unlimited(cfg))
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return client, nil
}

func unlimited(cfg *rest.Config) *rest.Config {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	return cfg
}
