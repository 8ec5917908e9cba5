package catalog

import "time"

// RefreshEvery sets how often the backends can be made to look again; not while the directory is in use.
func (d *Directory) RefreshEvery(every time.Duration) { d.refreshEvery = every }

// Age makes the publisher believe that it put its catalogues that much earlier.
func (p *Publisher) Age(by time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, k := range p.refs {
		k.when = k.when.Add(-by)
		p.refs[name] = k
	}
}
