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

func verify(ctx context.Context, client clerkauthzv1.AuthzServiceClient, header http.Header) (*clerkauthzv1.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	answer, err := client.VerifySession(ctx, &clerkauthzv1.VerifySessionRequest{
		Credential: &clerkauthzv1.VerifySessionRequest_Http{Http: &clerkauthzv1.HttpCredentials{
			Authorization: header.Values("Authorization"),
			Cookie:        header.Values("Cookie"),
		}},
	})
	if err == nil {
		return answer.GetSession(), nil
	}
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
		return nil, denied{reason}
	}
	// Everything else, whatever it is, is not a yes.
	if reason == "" {
		reason = known.Code().String()
	}
	return nil, cannotTell{reason, retryAfter}
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
	client := clerkauthzv1.NewAuthzServiceClient(connection)

	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		session, err := verify(r.Context(), client, r.Header)
		var no denied
		var unknown cannotTell
		switch {
		case err == nil:
			organization := session.GetOrganization()
			reply(w, http.StatusOK, map[string]string{
				"user_id": session.GetUserId(), "organization": organization.GetId(), "role": organization.GetRole(),
			})
		case errors.As(err, &no):
			w.Header().Set("WWW-Authenticate", "Bearer")
			reply(w, http.StatusUnauthorized, map[string]string{"reason": no.reason})
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
