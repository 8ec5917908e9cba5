package localcomfy

import (
	"io"
	"time"

	"github.com/sirupsen/logrus"
)

// timing holds every wait of the package, so that tests can shorten them.
type timing struct {
	probe    time.Duration // between two looks at ComfyUI while it is up; 0 is comfyhttp's
	starting time.Duration // between two looks while it starts
	alive    time.Duration // between two looks at an adopted process
	grace    time.Duration // from SIGTERM to SIGKILL
	check    time.Duration // between two looks at its log's size and its silence
	steady   time.Duration // how long it must have been up to be started again at once when it dies
	first    time.Duration // the first pause before another attempt, growing up to most
	most     time.Duration
	install  time.Duration // the pause after an installation that failed
	logSize  int64         // of the log before it is put aside
}

func defaultTiming() timing {
	return timing{starting: 250 * time.Millisecond, alive: 500 * time.Millisecond, grace: 10 * time.Second,
		check: 5 * time.Second, steady: time.Minute, first: time.Second, most: time.Minute, install: 5 * time.Minute, logSize: 16 << 20}
}

func nobody() logrus.FieldLogger {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return l
}
