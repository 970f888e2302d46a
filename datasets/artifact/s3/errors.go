package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/longalign/longalign-go/datasets/artifact"
)

// failure is a refused or failed request in words of our own. The SDK's error stays in the chain for its type, not for
// its text, which may repeat a whole request.
type failure struct {
	op     string // the operation and the key
	kind   error  // one of artifact's kinds; nil when none fits
	code   string // S3's error code; empty when there was no answer
	reason string
	cause  error
}

func (f *failure) Error() string {
	parts := []string{f.op}
	if f.kind != nil {
		parts = append(parts, f.kind.Error())
	}
	if f.code != "" {
		parts = append(parts, f.code)
	}
	if f.reason != "" {
		parts = append(parts, f.reason)
	}
	return strings.Join(parts, ": ")
}

func (f *failure) Unwrap() []error {
	if f.kind == nil {
		return []error{f.cause}
	}
	return []error{f.kind, f.cause}
}

// status returns the HTTP status of the answer behind err, 0 when there was none.
func status(err error) int {
	var response *awshttp.ResponseError
	if errors.As(err, &response) && response.ResponseError != nil && response.Response != nil {
		return response.HTTPStatusCode()
	}
	return 0
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// translate turns an SDK error into a failure.
func (b *backend) translate(op, key string, err error, cond artifact.Condition) error {
	if err == nil {
		return nil
	}
	f := &failure{op: op + " " + key, code: code(err), cause: err}
	var api smithy.APIError
	if errors.As(err, &api) {
		f.reason = api.ErrorMessage()
	}
	http5xx := status(err) >= 500
	switch st := status(err); {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s %s: %w", op, key, err)
	case f.code == "NoSuchBucket":
		f.reason = fmt.Sprintf("bucket %s does not exist at this endpoint: create it, or check AWS_ENDPOINT_URL_S3 and AWS_REGION", b.bucket)
	case st == http.StatusPreconditionFailed && cond.IfNoneMatch:
		f.kind = artifact.ErrExists
	case st == http.StatusPreconditionFailed, st == http.StatusNotFound && cond.IfMatch != "":
		f.kind = artifact.ErrChanged
	case st == http.StatusNotFound && f.code != "NoSuchUpload":
		f.kind = artifact.ErrNotFound
	case st == http.StatusInsufficientStorage, f.code == "QuotaExceeded", f.code == "XMinioStorageFull", f.code == "StorageFull",
		http5xx && strings.Contains(f.reason, "no space left"):
		f.kind = artifact.ErrFull
		f.reason = "the service has no room: free some (`starter gc` shows what the store can spare) or use another store; nothing was half-written"
	case st == http.StatusUnauthorized, st == http.StatusForbidden:
		f.kind = artifact.ErrDenied
		f.reason = strings.TrimSuffix(f.reason, ".") + "; check AWS_ACCESS_KEY_ID or AWS_PROFILE, and what the key may do with bucket " + b.bucket
	case st == http.StatusMovedPermanently, f.code == "AuthorizationHeaderMalformed":
		f.kind = artifact.ErrDenied
		f.reason = fmt.Sprintf("bucket %s seems to be in another region: set AWS_REGION (%s)", b.bucket, f.reason)
	case http5xx, st == http.StatusTooManyRequests, st == http.StatusConflict:
		f.kind = artifact.ErrUnavailable
	case st == 0 && f.code == "":
		f.kind = artifact.ErrUnavailable
		f.reason = "no answer: is it running, and is AWS_ENDPOINT_URL_S3 right? " + sendFailure(err)
	}
	if f.reason == "" && f.code == "" {
		f.reason = fmt.Sprintf("HTTP status %d", status(err))
	}
	return f
}

// sendFailure returns the innermost text of a request that could not be sent: "dial tcp 127.0.0.1:9: connection refused".
func sendFailure(err error) string {
	var send *awshttp.ResponseError
	if errors.As(err, &send) {
		err = send.Err
	}
	var request interface{ ConnectionError() bool }
	if errors.As(err, &request) {
		if inner := errors.Unwrap(request.(error)); inner != nil {
			err = inner
		}
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil || !strings.Contains(err.Error(), "://") { // url.Error repeats the request's URL
			return err.Error()
		}
		err = inner
	}
}
