// A web handler that lets in whoever clerk-authz lets in, and nobody when it cannot be told.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	clerkauthzv1 "example.com/clerk-authz-example/gen/clerkauthz/v1"
)

// A caller that waits longer than this has better things to do than to wait.
const deadline = 500 * time.Millisecond

// Retries are the connection's business: only for "cannot tell", never for a denial.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "methodConfig": [{
    "name": [{"service": "clerkauthz.v1.AuthzService"}],
    "retryPolicy": {
      "maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.2s", "backoffMultiplier": 2,
      "retryableStatusCodes": ["UNAVAILABLE"]
    }
  }]
}`

// denied: the token is not good; the reason says why.
type denied struct{ reason string }

func (d denied) Error() string { return d.reason }

// cannotTell: neither yes nor no. Answer 503, and never let the request pass.
type cannotTell struct {
	reason     string
	retryAfter time.Duration
}

func (c cannotTell) Error() string { return c.reason }

// forbidden: the token is good, and its user may not; the decision is found in the service's log.
type forbidden struct{ reason, decisionID string }

func (f forbidden) Error() string { return f.reason }

// authz asks the service about the headers of requests. One for the whole process.
type authz struct {
	client clerkauthzv1.AuthzServiceClient
}

// credentials are the values as they were received, all of them.
func credentials(header http.Header) *clerkauthzv1.HttpCredentials {
	return &clerkauthzv1.HttpCredentials{
		Authorization: header.Values("Authorization"),
		Cookie:        header.Values("Cookie"),
	}
}

// verify returns the session.
func (a authz) verify(ctx context.Context, header http.Header) (*clerkauthzv1.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	answer, err := a.client.VerifySession(ctx, &clerkauthzv1.VerifySessionRequest{
		Credential: &clerkauthzv1.VerifySessionRequest_Http{Http: credentials(header)},
	})
	if err != nil {
		return nil, failure(err)
	}
	return answer.GetSession(), nil
}

// require passes only if the caller may; asked is everything but the subject.
func (a authz) require(ctx context.Context, header http.Header, asked *clerkauthzv1.CheckOrgPermissionRequest) (*clerkauthzv1.CheckOrgPermissionResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	asked.Subject = &clerkauthzv1.CheckOrgPermissionRequest_Http{Http: credentials(header)}
	answer, err := a.client.CheckOrgPermission(ctx, asked)
	if err != nil {
		return nil, failure(err)
	}
	// A "no" about a permission is an answer: forget to look, and everybody is let in.
	if !answer.GetAllowed() {
		reason := strings.TrimPrefix(answer.GetReason().String(), "REASON_")
		return nil, forbidden{reason, answer.GetDecisionId()}
	}
	return answer, nil
}

// failure says what an error means: denied, or cannotTell.
func failure(err error) error {
	known := status.Convert(err)
	reason, retryAfter := "", time.Second
	for _, detail := range known.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		case *errdetails.RetryInfo:
			retryAfter = max(retryAfter, detail.GetRetryDelay().AsDuration())
		}
	}
	if known.Code() == codes.Unauthenticated {
		return denied{reason}
	}
	// Everything else, whatever it is, is not a yes.
	if reason == "" {
		reason = known.Code().String()
	}
	return cannotTell{reason, retryAfter}
}

// who am I?
func (a authz) who(r *http.Request) (int, map[string]string, error) {
	session, err := a.verify(r.Context(), r.Header)
	if err != nil {
		return 0, nil, err
	}
	organization := session.GetOrganization()
	return http.StatusOK, map[string]string{
		"user_id": session.GetUserId(), "organization": organization.GetId(), "role": organization.GetRole(),
	}, nil
}

// makeInvoice makes an invoice, in the organization that is active in the session.
func (a authz) makeInvoice(r *http.Request) (int, map[string]string, error) {
	permission := "org:invoices:create"
	asked := &clerkauthzv1.CheckOrgPermissionRequest{Permission: &permission}
	decision, err := a.require(r.Context(), r.Header, asked)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, map[string]string{"organization": decision.GetOrganizationId()}, nil
}

func reply(w http.ResponseWriter, code int, body map[string]string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func main() {
	address := os.Getenv("AUTHZ_ADDR")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	// One connection for the whole process: it reconnects by itself.
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second}),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	authz := authz{clerkauthzv1.NewAuthzServiceClient(connection)}

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		handler := authz.who
		if r.Method == http.MethodPost {
			handler = authz.makeInvoice
		}
		code, body, err := handler(r)
		var no denied
		var mayNot forbidden
		var unknown cannotTell
		switch {
		case err == nil:
			reply(w, code, body)
		case errors.As(err, &no):
			w.Header().Set("WWW-Authenticate", "Bearer")
			reply(w, http.StatusUnauthorized, map[string]string{"reason": no.reason})
		case errors.As(err, &mayNot):
			reply(w, http.StatusForbidden, map[string]string{"reason": mayNot.reason, "decision_id": mayNot.decisionID})
		case errors.As(err, &unknown):
			w.Header().Set("Retry-After", strconv.Itoa(int(unknown.retryAfter.Seconds())))
			reply(w, http.StatusServiceUnavailable, map[string]string{"reason": unknown.reason})
		}
	})
	port := os.Getenv("PORT")
	if port == "" {
		port = "0"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, nil))
}
