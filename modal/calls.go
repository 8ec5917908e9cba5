package modal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/fxamacker/cbor/v2"
	sdk "github.com/modal-labs/modal-client/go"
	pb "github.com/modal-labs/modal-client/go/proto/modal_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	// errGone says that Modal has no result of a call, and none to come: it has expired, was released, or never was.
	errGone = errors.New("no result of this call is at Modal")
	// errUpload says that the blob store did not take the arguments of a call.
	errUpload = errors.New("the upload to Modal's blob store failed")
	// errDoubt says that nobody knows whether Modal has taken a call on.
	errDoubt = errors.New("it came to no clear end")
)

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spawn hands a function call to Modal and returns its ID. An error that is errDoubt leaves open whether Modal has it;
// any other says that it has not.
func (b *Backend) spawn(ctx context.Context, fn *sdk.Function, args []any, size int64) (string, error) {
	s := new(sent)
	ctx, done := context.WithTimeout(context.WithValue(ctx, sentKey{}, s), b.t.spawn+time.Duration(size/b.t.spawnRate)*time.Second)
	defer done()
	call, err := fn.Spawn(ctx, args, nil)
	err = withoutURL(err)
	switch {
	case err == nil:
		return call.FunctionCallID, nil
	case s.doubt.Load():
		return "", fmt.Errorf("%w: %w", errDoubt, err)
	}
	return "", err
}

// withoutURL is err, or what lies below where it names a URL: the one that inputs are uploaded to is signed, which is as
// good as a password, and the SDK's error holds it (v0.11.1, blob.go: blobUpload).
func withoutURL(err error) error {
	for below := new(url.Error); errors.As(err, &below); {
		err = fmt.Errorf("%w: %w", errUpload, below.Err)
	}
	return err
}

// poll asks once for the output of a call, and lets Modal hold the question until there is one or the time is over.
// Nil without an error means that the call goes on, errGone that nothing is there and nothing will come: no outputs and
// no unfinished inputs, which is how modal 1.6.4 knows an expired result (_functions.py: poll_function).
func (b *Backend) poll(ctx context.Context, id string, hold time.Duration, clear bool) (*pb.FunctionGetOutputsItem, error) {
	ctx, done := context.WithTimeout(ctx, hold+b.t.grace)
	defer done()
	ask := b.client
	if hold > 0 {
		line, err := b.lines.take()
		if err != nil {
			return nil, err
		}
		defer b.lines.put(line)
		ask = line.client
	}
	r, err := ask.raw.FunctionGetOutputs(ctx, pb.FunctionGetOutputsRequest_builder{
		FunctionCallId: id, MaxValues: 1, Timeout: float32(hold.Seconds()), LastEntryId: "0-0", ClearOnSuccess: clear,
		RequestedAt: float64(time.Now().UnixNano()) / 1e9,
	}.Build())
	switch {
	case status.Code(err) == codes.NotFound:
		return nil, errGone
	case err != nil:
		return nil, err
	case len(r.GetOutputs()) > 0:
		return r.GetOutputs()[0], nil
	case r.GetNumUnfinishedInputs() == 0:
		return nil, errGone
	}
	return nil, nil
}

// await waits for a call's output, through everything that may keep Modal from answering: the call runs on meanwhile.
// It fails with errGone or when ctx ends.
func (b *Backend) await(ctx context.Context, id string, clear bool) (*pb.FunctionGetOutputsItem, error) {
	wait := newPause(b.t.again, b.t.againMost)
	gone := false
	var warned time.Time
	for {
		item, err := b.poll(ctx, id, b.t.poll, clear)
		switch {
		case item != nil:
			return item, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err == nil:
			gone = false
			wait.Reset()
			continue
		case errors.Is(err, errGone) && gone:
			return nil, errGone
		case errors.Is(err, errGone): // seen once, it may be the moment between the end of a call and its output
			gone = true
			if err := sleep(ctx, b.t.gone); err != nil {
				return nil, err
			}
			continue
		}
		gone = false
		if time.Since(warned) > time.Minute {
			warned = time.Now()
			b.log.WithError(err).WithField("function_call", id).Warn("Modal does not answer about a call, which runs on; asking again")
		}
		if err := sleep(ctx, wait.NextBackOff()); err != nil {
			return nil, err
		}
	}
}

// ask calls one of the app's small functions and decodes what it returns.
func (b *Backend) ask(ctx context.Context, fn *sdk.Function, args []any, into any) error {
	id, err := b.spawn(ctx, fn, args, 0)
	if err != nil {
		return err
	}
	item, err := b.await(ctx, id, true)
	if err != nil {
		return err
	}
	if item.GetResult().GetStatus() != pb.GenericResult_GENERIC_STATUS_SUCCESS {
		return &callFailed{item}
	}
	body, err := b.open(ctx, item.GetResult(), 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxCatalog))
	if err != nil {
		return err
	}
	if err := cbor.Unmarshal(data, into); err != nil || item.GetDataFormat() != pb.DataFormat_DATA_FORMAT_CBOR {
		return fmt.Errorf("the app answered something else than %T (%s, %v)", into, item.GetDataFormat(), err)
	}
	return nil
}

// callFailed is a call of one of the app's small functions that did not succeed.
type callFailed struct{ item *pb.FunctionGetOutputsItem }

func (e *callFailed) Error() string {
	class, message, _, _ := exception(e.item.GetResult().GetException())
	return fmt.Sprintf("the app's function ended as %s: %s: %s", statusName(e.item), class, firstLine(message))
}

// locate asks the app's ledger which call has claimed a prompt; empty for none. With bar, a prompt that nobody has
// claimed can never run from then on. It goes on asking until it knows, or ctx ends. Where there is no app any more,
// nothing runs: Modal ends the calls of an app that is stopped.
func (b *Backend) locate(ctx context.Context, prompt string, bar bool) (string, error) {
	wait := newPause(b.t.again, b.t.againMost)
	absent := 0
	for {
		id, err := b.tryLocate(ctx, prompt, bar)
		switch {
		case err == nil:
			return id, nil
		case ctx.Err() != nil:
			return "", ctx.Err()
		case isNotFound(err):
			if absent++; absent == 3 {
				return "", nil
			}
		default:
			absent = 0
		}
		b.log.WithError(err).WithField("prompt_id", prompt).Warn("the app at Modal does not say who has a prompt; asking again")
		if err := sleep(ctx, wait.NextBackOff()); err != nil {
			return "", err
		}
	}
}

// tryLocate asks once. It fails as not found where the app is not there.
func (b *Backend) tryLocate(ctx context.Context, prompt string, bar bool) (id string, err error) {
	if dep := b.deployment(); dep != nil {
		if err = b.ask(ctx, dep.locate, []any{prompt, bar}, &id); !isNotFound(err) {
			return id, err
		}
	}
	b.wake() // it is deployed anew, or not at all
	quick, done := context.WithTimeout(ctx, b.t.call)
	defer done()
	dep, err := b.lookup(quick)
	if err != nil {
		return "", err
	}
	return id, b.ask(ctx, dep.locate, []any{prompt, bar}, &id)
}
