package comfyhttp

import "time"

// timing holds every wait of the package, so that tests can shorten them.
type timing struct {
	probe        time.Duration // between two looks at a server
	catalogEvery time.Duration // between two reads of its catalogue
	catalogFresh time.Duration // a catalogue this young is not asked for again before a refusal
	call         time.Duration // for an ordinary answer to begin
	post         time.Duration // for POST /prompt: ComfyUI validates first, and may be busy loading a model
	slow         time.Duration // for a catalogue, which ComfyUI makes from all its nodes and model folders
	body         time.Duration // for an answer that is read whole, once it has begun
	idle         time.Duration // without a byte, in uploads and downloads

	pollFirst time.Duration // the first look at the history, doubling up to pollMost
	pollMost  time.Duration
	pollBlind time.Duration // the most while there is no socket

	queueQuiet time.Duration // silence on the socket before the queue is looked at
	queueBlind time.Duration // the same without a socket
	absent     time.Duration // between the two looks that make a prompt lost
	idles      time.Duration // for nothing to run although prompts wait: beyond what ComfyUI takes to tidy up in between

	// refused and hung are how long a server may refuse connections, or take them and not answer, before its prompts
	// count as lost. Loading a large model can keep ComfyUI from answering for many seconds, so the second is longer.
	refused time.Duration
	hung    time.Duration
	rest    time.Duration // for a server that fails again and again, before it is tried once more

	socketReady time.Duration // for the socket's first message, before the prompt is posted without it
	socketAgain time.Duration // before the first attempt to reopen it, doubling up to pollMost
	ping        time.Duration
	deaf        time.Duration // without a word about our running prompt on a new socket, before it is opened anew
	frames      time.Duration // for the last frames after the history has the prompt

	stall    time.Duration // where the prompt names no limit
	progress time.Duration // between two updates to the recorder
	preview  time.Duration // between two previews
	cancel   time.Duration // between two looks while a prompt is being stopped
	giveUp   time.Duration // for stopping a stalled or half-refused prompt
}

func defaultTiming() timing {
	return timing{
		probe: 2 * time.Second, catalogEvery: time.Minute, catalogFresh: 2 * time.Second,
		call: 10 * time.Second, post: time.Minute, slow: time.Minute, body: 5 * time.Minute, idle: time.Minute,
		pollFirst: 50 * time.Millisecond, pollMost: 2 * time.Second, pollBlind: 500 * time.Millisecond,
		queueQuiet: 15 * time.Second, queueBlind: 2 * time.Second, absent: 500 * time.Millisecond, idles: 40 * time.Second,
		refused: 8 * time.Second, hung: time.Minute, rest: 15 * time.Second,
		socketReady: 2 * time.Second, socketAgain: 250 * time.Millisecond, ping: 15 * time.Second, deaf: 30 * time.Second,
		frames: 5 * time.Second, stall: 10 * time.Minute, progress: 100 * time.Millisecond, preview: 250 * time.Millisecond,
		cancel: 100 * time.Millisecond, giveUp: 15 * time.Second,
	}
}
