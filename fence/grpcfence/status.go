package grpcfence

import (
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fencepost/fencepost/fence"
	"github.com/fencepost/fencepost/fence/internal/wire"
)

// domain is that of the ErrorInfo in a refusal.
const domain = "fencepost"

// statuses lists the code of each kind.
var statuses = map[wire.Kind]codes.Code{
	wire.Stale:            codes.FailedPrecondition,
	wire.Missing:          codes.InvalidArgument,
	wire.Malformed:        codes.InvalidArgument,
	wire.NeverIssued:      codes.PermissionDenied,
	wire.Unsigned:         codes.PermissionDenied,
	wire.Unverified:       codes.Unavailable,
	wire.Draining:         codes.Unavailable,
	wire.NotSaved:         codes.Unavailable,
	wire.Unavailable:      codes.Unavailable,
	wire.Resource:         codes.InvalidArgument,
	wire.TooManyResources: codes.ResourceExhausted,
}

func reason(k wire.Kind) string { return strings.ToUpper(strings.ReplaceAll(string(k), "-", "_")) }

func kindOf(reason string) wire.Kind {
	return wire.Kind(strings.ToLower(strings.ReplaceAll(reason, "_", "-")))
}

// statusOf makes an error of gRPC of a refusal.
func statusOf(a wire.Answer) error {
	info := &errdetails.ErrorInfo{Reason: reason(a.Kind), Domain: domain, Metadata: map[string]string{"outcome": a.Outcome}}
	add := func(key, value string) {
		if value != "" {
			info.Metadata[key] = value
		}
	}
	add("resource", a.Resource)
	add("held", a.Held)
	add("current", a.Current)
	if a.Holder != nil {
		add("holder-name", a.Holder.Name)
		add("holder-address", a.Holder.Address)
		add("holder-build", a.Holder.Build)
		if !a.Holder.Since.IsZero() {
			add("holder-since", a.Holder.Since.UTC().Format(time.RFC3339Nano))
		}
	}
	s := status.New(statuses[a.Kind], a.Title())
	detailed, err := s.WithDetails(info)
	if err == nil && s.Code() == codes.Unavailable {
		detailed, err = detailed.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	}
	if err != nil { // the code says enough
		return s.Err()
	}
	return detailed.Err()
}

// Refusal returns the refusal of a guard that err holds, or nil if err is none: a
// *[fence.Error], which is a hint, a *[fence.TokenError], a
// *[fence.UndecidedError], or an error about the resource. It reads the errors of
// every gRPC client, and of the interceptors here. Pass a *fence.Error to
// catalog.Catalog.Explain, or let leader.Leader do it.
func Refusal(err error) error {
	if known := wire.Refusal(err); known != nil {
		return known
	}
	s, ok := status.FromError(err)
	if !ok || err == nil {
		return nil
	}
	for _, detail := range s.Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetDomain() != domain {
			continue
		}
		a := answerOf(info)
		if code, known := statuses[a.Kind]; known && code == s.Code() {
			return a.Err("grpc")
		}
	}
	return nil
}

func answerOf(info *errdetails.ErrorInfo) wire.Answer {
	m := info.GetMetadata()
	since, _ := time.Parse(time.RFC3339Nano, m["holder-since"])
	return wire.Answer{
		Kind: kindOf(info.GetReason()), Resource: m["resource"], Held: m["held"], Current: m["current"],
		Holder: &fence.Holder{Name: m["holder-name"], Address: m["holder-address"], Build: m["holder-build"], Since: since},
	}
}

// A refused is a status that a client received, with the refusal that it holds.
type refused struct {
	status  error
	refusal error
}

func (e *refused) Error() string { return e.refusal.Error() }

// Unwrap returns the refusal.
func (e *refused) Unwrap() error { return e.refusal }

// GRPCStatus makes status.FromError find the status.
func (e *refused) GRPCStatus() *status.Status { return status.Convert(e.status) }

// explained returns err, with the refusal that it holds.
func explained(err error) error {
	if err == nil {
		return nil
	}
	if refusal := Refusal(err); refusal != nil {
		return &refused{err, refusal}
	}
	return err
}
