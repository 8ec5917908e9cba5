package live

import "time"

// CallTimeout sets how long the other side may take to answer, and to take what is written; not while the hub is in use.
func (h *Hub) CallTimeout(d time.Duration) { h.callTimeout = d }
