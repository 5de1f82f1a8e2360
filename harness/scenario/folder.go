package scenario

// plain makes one scenario out of plain manifests.
func (l *loader) plain(root string, manifests []*manifest, assertions *manifest) *Scenario {
	return nil
}
