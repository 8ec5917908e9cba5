package modal

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxUploads bounds what files of jobs may take in memory on their way to Modal, all jobs together. The SDK wants them
// there, and makes a copy in CBOR: so each byte counts twice, and maxInputs bounds the files of one job.
const (
	maxUploads = 512 << 20
	maxInputs  = maxUploads / 2
)

// timing holds every wait of the package, so that tests can shorten them.
type timing struct {
	look     time.Duration // between two looks at the app
	lookSick time.Duration // the same while it is not well
	call     time.Duration // for an ordinary answer
	throttle time.Duration // how long the SDK may wait where Modal asks it to come again

	catalog      time.Duration // for the catalogue, which starts a ComfyUI on a CPU
	catalogFresh time.Duration // a catalogue that was found to be up to date so lately is not looked at again
	catalogWait  time.Duration // how long a refusal waits for that look
	catalogBlind time.Duration // the same where nobody can tell whether models have come or gone
	catalogAgain time.Duration // before the second attempt where the first failed, doubling up to catalogMost
	catalogMost  time.Duration

	poll      time.Duration // how long Modal holds a question for a result
	grace     time.Duration // for that answer to come after the hold
	again     time.Duration // before a question that failed is put again, doubling up to againMost
	againMost time.Duration
	gone      time.Duration // between the two looks that make a result gone

	spawn     time.Duration // for handing a call over, its inputs apart
	spawnRate int64         // bytes a second that the upload of inputs must reach at least

	channel     time.Duration // how long Modal holds a question for progress
	graph       time.Duration // between two looks whether a call runs, while the channel says nothing
	blob        time.Duration // without a byte of a result
	stats       time.Duration // a look at the number of runners this young is believed
	statsWait   time.Duration // how long Ready waits for such a look
	hold        time.Duration // before another warm-up where nobody knows what became of the last
	warm        time.Duration // for a container to come up: the app's startup timeout may be long
	warmed      time.Duration // a container that came up so lately is there, whatever the statistics say
	aside       time.Duration // the first pause after containers failed to start, doubling up to asideMost
	asideMost   time.Duration
	cancelAgain time.Duration // between two words to a container that a call is cancelled
	terminate   time.Duration // before the container itself is ended; whoever cancels may give up soon after
	giveUp      time.Duration // for stopping a call that nobody will follow
	resultTries int           // how often a result's bytes are asked for when its blob is missing
	polls       int           // how many questions Modal may hold on one connection
}

func defaultTiming() timing {
	return timing{
		look: 15 * time.Second, lookSick: 3 * time.Second, call: 15 * time.Second, throttle: 20 * time.Second,
		catalog: 10 * time.Minute, catalogFresh: 2 * time.Second, catalogWait: 2 * time.Second, catalogBlind: time.Minute,
		catalogAgain: 15 * time.Second, catalogMost: 10 * time.Minute,
		poll: 20 * time.Second, grace: 15 * time.Second, again: 250 * time.Millisecond, againMost: 10 * time.Second, gone: time.Second,
		spawn: 90 * time.Second, spawnRate: 256 << 10,
		channel: 20 * time.Second, graph: 10 * time.Second, blob: time.Minute, stats: time.Second, statsWait: 3 * time.Second, hold: time.Minute,
		warm: time.Hour, warmed: 30 * time.Second, aside: 10 * time.Second, asideMost: 5 * time.Minute,
		cancelAgain: 3 * time.Second, terminate: 11 * time.Second, giveUp: 15 * time.Second, resultTries: 3, polls: 80,
	}
}

// newPause doubles from first up to most. Not by chance: the tests count on it, and there is one caller for each call.
func newPause(first, most time.Duration) *backoff.ExponentialBackOff {
	p := &backoff.ExponentialBackOff{InitialInterval: first, MaxInterval: most, Multiplier: 2}
	p.Reset()
	return p
}
