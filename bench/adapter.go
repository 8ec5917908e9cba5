package main

// state is what a job is to a client that polls it.
type state int

const (
	open      state = iota
	completed       // its images can be had
	ended           // it has an end, and no images
)

// adapter speaks one server's terms.
type adapter interface {
	// submit sends a graph and returns the job's ID.
	submit(c *client, graph []byte) (id string, err error)
	// poll asks once. The answer is what fetch needs of a job that has completed, and what somebody would want to read of
	// one that has ended otherwise.
	poll(c *client, id string) (state, []byte, error)
	// fetch gets what a client lacks still to have all images in hand.
	fetch(c *client, id string, answer []byte) (result, error)
}

// waiter is an adapter whose server can hold an answer back until a job's end.
type waiter interface {
	wait(c *client, id string, seconds int) (state, []byte, error)
}

// linker is an adapter that can fetch images as files, where the answer itself holds them otherwise.
type linker interface {
	links(c *client, id string) (result, error)
}

// result is every byte that a job's images came in.
type result struct {
	bytes int
	// images takes them apart, when no clock runs any more.
	images func() ([][]byte, error)
}

// files is the result of images that came as files.
func files(all [][]byte) result {
	n := 0
	for _, f := range all {
		n += len(f)
	}
	return result{bytes: n, images: func() ([][]byte, error) { return all, nil }}
}
