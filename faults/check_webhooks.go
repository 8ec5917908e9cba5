package faults

// Message is what the receiver of a webhook got.
type Message struct {
	Job, ID string
	Data    map[string]any // what it says of the job
	Taken   bool           // it was answered 2xx
	Err     error          // why it is not signed as it should be
}

// webhooks checks that each message is what it should be, and that none is missing.
func (c *checker) webhooks() {
	ids, owners, taken := map[string]string{}, map[string]string{}, map[string]bool{}
	for _, m := range c.Messages {
		switch before := ids[m.Job]; {
		case m.Err != nil:
			c.bad("I5", m.Job, "a message: %v", m.Err)
		case before != "" && before != m.ID:
			c.bad("I5", m.Job, "one message has the ids %s and %s", before, m.ID)
		case owners[m.ID] != "" && owners[m.ID] != m.Job:
			c.bad("I5", m.Job, "its message has the id of that of %s", owners[m.ID])
		}
		ids[m.Job], owners[m.ID] = m.ID, m.Job
		taken[m.Job] = taken[m.Job] || m.Taken
		if j := c.jobs[m.Job]; m.Data != nil && j != nil && j.end != nil {
			if said, is := essence(m.Data), essence(j.end.Body); said != is {
				c.bad("I5", m.Job, "its receiver was told %s, and its status is %s", said, is)
			}
		}
	}
	for _, id := range c.Told {
		if !taken[id] {
			c.bad("I5", id, "its receiver was up, and has taken no message")
		}
	}
}
