package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"gocloud.dev/blob"
	_ "gocloud.dev/blob/azureblob" // azblob://
	_ "gocloud.dev/blob/s3blob"    // s3://
	"gocloud.dev/gcerrors"

	"github.com/comfyd/comfyd/comfy"
)

const (
	// quick bounds calls that move no more than one small object, so that a server which is away is noticed soon.
	quick = 10 * time.Second
	// idle bounds how long a transfer may stand still. A part of an upload (5 MiB) is one step.
	idle = 2 * time.Minute
	// atOnce is how many uploads from files run at a time: each holds some 40 MiB, most of it in the AWS SDK.
	atOnce = 2
	// contentType of every object: never what a browser would run if it came upon the bucket.
	contentType = "application/octet-stream"
	// pingKey can be no key of a caller's.
	pingKey = ".ping"
)

// bucket keeps blobs in an object store.
type bucket struct {
	bucket *blob.Bucket
	large  chan struct{} // a place for each upload from a file
}

func openBucket(ctx context.Context, u *url.URL) (*bucket, error) {
	if !blob.DefaultURLMux().ValidBucketScheme(u.Scheme) {
		return nil, invalid("no store is known under %s://; this build has file and %s", u.Scheme,
			strings.Join(blob.DefaultURLMux().BucketSchemes(), ", "))
	}
	b, err := blob.DefaultURLMux().OpenBucketURL(ctx, u)
	if err != nil {
		return nil, invalid("%v", err)
	}
	return &bucket{bucket: b, large: make(chan struct{}, atOnce)}, nil
}

func (b *bucket) close() error { return b.bucket.Close() }

func (b *bucket) put(ctx context.Context, key string, r io.Reader) (comfy.Blob, error) {
	s, err := newSpool(ctx, r)
	if err != nil {
		return comfy.Blob{}, err
	}
	defer s.close()
	if err := checkDigest(key, s.digest); err != nil {
		return comfy.Blob{}, err
	}
	return b.upload(ctx, key, s)
}

func (b *bucket) putHashed(ctx context.Context, prefix string, r io.Reader) (comfy.Blob, error) {
	s, err := newSpool(ctx, r)
	if err != nil {
		return comfy.Blob{}, err
	}
	defer s.close()
	key := prefix + s.digest
	// A server that is away is noticed by this sooner than by a long upload.
	if _, err := b.stat(ctx, key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return comfy.Blob{}, err
	}
	// Also where it is there: there is no other way to renew an object's time that all object stores take.
	return b.upload(ctx, key, s)
}

// upload moves a spool to the bucket. Object stores show an object only when its upload is complete.
func (b *bucket) upload(ctx context.Context, key string, s *spool) (comfy.Blob, error) {
	if s.file != nil {
		select {
		case b.large <- struct{}{}:
			defer func() { <-b.large }()
		case <-ctx.Done():
			return comfy.Blob{}, classify(ctx.Err(), "")
		}
	}
	ctx, watch := newWatch(ctx, s.patience())
	defer watch.stop()
	err := b.bucket.Upload(ctx, key, watch.reader(s.content()), &blob.WriterOptions{
		// The smallest part that S3 takes, one at a time: this is what an upload holds in memory.
		BufferSize:     5 << 20,
		MaxConcurrency: 1,
		ContentType:    contentType,
	})
	if err != nil {
		return comfy.Blob{}, classify(watch.explain(err), "")
	}
	return comfy.Blob{Key: key, Size: s.size, SHA256: s.digest}, nil
}

func (b *bucket) open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	readCtx, watch := newWatch(ctx, quick)
	r, err := b.bucket.NewRangeReader(readCtx, key, offset, length, &blob.ReaderOptions{BeforeRead: quietReads})
	if err == nil {
		watch.limit(idle)
		return &bucketReader{r: r, watch: watch}, nil
	}
	watch.stop()
	err = classify(watch.explain(err), key)
	var e *Error
	if errors.As(err, &e) && !e.Temporary && (length >= 0 || offset > 0) {
		// Object stores refuse a range that starts behind the end, each in its own words.
		if there, statErr := b.stat(ctx, key); statErr == nil && offset >= there.Size {
			return io.NopCloser(strings.NewReader("")), nil
		}
	}
	return nil, err
}

// quietReads keeps the AWS SDK from writing a warning to standard error for every object that was uploaded in parts.
func quietReads(as func(any) bool) error {
	var options *[]func(*s3.Options)
	if as(&options) {
		*options = append(*options, func(o *s3.Options) { o.DisableLogOutputChecksumValidationSkipped = true })
	}
	return nil
}

// bucketReader ends when its connection stands still, and types its errors.
type bucketReader struct {
	r     io.ReadCloser
	watch *watch
}

func (r *bucketReader) Read(p []byte) (int, error) {
	n, err := r.watch.reader(r.r).Read(p)
	if err != nil && err != io.EOF {
		err = classify(r.watch.explain(err), "")
	}
	return n, err
}

func (r *bucketReader) Close() error {
	defer r.watch.stop()
	return r.r.Close()
}

func (b *bucket) stat(ctx context.Context, key string) (comfy.Blob, error) {
	ctx, watch := newWatch(ctx, quick)
	defer watch.stop()
	a, err := b.bucket.Attributes(ctx, key)
	if err != nil {
		return comfy.Blob{}, classify(watch.explain(err), key)
	}
	return comfy.Blob{Key: key, Size: a.Size, SHA256: digestIn(key), Modified: a.ModTime}, nil
}

// touch copies an object onto itself, within the object store, and writes it again where that did not renew it.
func (b *bucket) touch(ctx context.Context, key string) error {
	if err := b.copyOnto(ctx, key); err != nil {
		return err
	}
	there, err := b.stat(ctx, key)
	if err != nil || time.Since(there.Modified) < freshFor {
		return err
	}
	r, err := b.open(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = b.put(ctx, key, r)
	return err
}

func (b *bucket) copyOnto(ctx context.Context, key string) error {
	ctx, watch := newWatch(ctx, quick)
	defer watch.stop()
	err := b.bucket.Copy(ctx, key, key, &blob.CopyOptions{BeforeCopy: func(as func(any) bool) error {
		var input *s3.CopyObjectInput
		if as(&input) { // S3 refuses a copy that changes nothing
			kind := contentType
			input.MetadataDirective, input.ContentType = types.MetadataDirectiveReplace, &kind
		}
		return nil
	}})
	return classify(watch.explain(err), key)
}

func (b *bucket) remove(ctx context.Context, key string) error {
	ctx, watch := newWatch(ctx, quick)
	defer watch.stop()
	err := classify(watch.explain(b.bucket.Delete(ctx, key)), key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (b *bucket) list(ctx context.Context, prefix string) iter.Seq2[comfy.Blob, error] {
	return func(yield func(comfy.Blob, error) bool) {
		objects := b.bucket.List(&blob.ListOptions{Prefix: prefix})
		for {
			pageCtx, watch := newWatch(ctx, quick)
			o, err := objects.Next(pageCtx)
			watch.stop()
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(comfy.Blob{}, classify(watch.explain(err), ""))
				return
			}
			if !yield(comfy.Blob{Key: o.Key, Size: o.Size, SHA256: digestIn(o.Key), Modified: o.ModTime}, nil) {
				return
			}
		}
	}
}

func (b *bucket) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	if _, err := b.put(ctx, pingKey, strings.NewReader(pingText)); err != nil {
		return err
	}
	r, err := b.open(ctx, pingKey, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	return checkPing(r)
}

// classify turns a driver's error into an Error. key is empty where "not found" can only mean the bucket.
func classify(err error, key string) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return &Error{Temporary: true, Err: err}
	}
	var api interface{ ErrorCode() string } // of the AWS SDK
	noBucket := errors.As(err, &api) && api.ErrorCode() == "NoSuchBucket"
	var answer interface{ HTTPStatusCode() int }
	var azure *azcore.ResponseError
	status := 0
	switch {
	case errors.As(err, &answer):
		status = answer.HTTPStatusCode()
	case errors.As(err, &azure):
		status = azure.StatusCode
	}
	code := gcerrors.Code(err)
	// 409 is S3's for an object that others change at the same time.
	passing := []int{http.StatusRequestTimeout, http.StatusConflict, http.StatusTooManyRequests}
	switch {
	case code == gcerrors.NotFound && key != "" && !noBucket:
		return &Error{Err: fmt.Errorf("%w: %w", fs.ErrNotExist, err)}
	case code == gcerrors.NotFound:
		return &Error{Err: fmt.Errorf("there is no such bucket; make it, or correct COMFYD_STORE_URL: %w", err)}
	case code == gcerrors.PermissionDenied, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return &Error{Err: fmt.Errorf("%w: check the store's credentials and their rights: %w", fs.ErrPermission, err)}
	case status == http.StatusInsufficientStorage, code == gcerrors.ResourceExhausted && status != http.StatusTooManyRequests:
		return &Error{Temporary: true, Err: fmt.Errorf("%w: %w", ErrFull, err)}
	case status >= 400 && status < 500 && !slices.Contains(passing, status),
		code == gcerrors.InvalidArgument, code == gcerrors.FailedPrecondition, code == gcerrors.Unimplemented:
		return &Error{Err: err}
	}
	return &Error{Temporary: true, Err: fmt.Errorf("%w: %w", ErrUnreachable, err)}
}
