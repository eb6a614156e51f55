// A service that answers only what came through the authorizer: it believes no header but the signed one.
// ASSERTION_KEYS says where the keys are, ASSERTION_AUDIENCE the name that the route policy has for this
// service, ASSERTION_ISSUER who vouches.
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
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// Its own type, so that no other token of the same issuer passes.
const assertionType = "clerk-authz-assertion+jwt"

// Claims are what an assertion says of a request.
type Claims struct {
	jwt.RegisteredClaims
	Session      string `json:"sid"`
	Organization string `json:"org_id"`
	Method       string `json:"method"`
	Host         string `json:"host"`
}

// Verifier knows the keys and for whom an assertion must be.
type Verifier struct {
	keys   keyfunc.Keyfunc
	parser *jwt.Parser
}

var port = regexp.MustCompile(`:\d*$`)

func withoutPort(host string) string {
	return strings.TrimSuffix(strings.ToLower(port.ReplaceAllString(host, "")), ".")
}

// Verified are the claims of an assertion for this request.
func (v *Verifier) Verified(assertion, method, host string) (*Claims, error) {
	var claims Claims
	token, err := v.parser.ParseWithClaims(assertion, &claims, v.keys.Keyfunc)
	if err != nil {
		return nil, err
	}
	if token.Header["typ"] != assertionType {
		return nil, errors.New("this is no assertion")
	}
	if claims.Subject == "" || claims.IssuedAt == nil {
		return nil, errors.New("a claim is missing")
	}
	// Good for one method and one host: a copy that somebody took elsewhere is not for us.
	if claims.Method != method || claims.Host != withoutPort(host) {
		return nil, errors.New("it is for another request")
	}
	return &claims, nil
}

func (v *Verifier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("content-type", "application/json")
	assertions := r.Header.Values("x-clerk-authz-assertion")
	if len(assertions) != 1 {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "one assertion is needed"})
		return
	}
	claims, err := v.Verified(assertions[0], r.Method, r.Host)
	if err != nil {
		// Also where there are no keys: who cannot be verified is not let in.
		answer(w, http.StatusUnauthorized, map[string]any{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"subject": claims.Subject, "session": orNull(claims.Session), "organization": orNull(claims.Organization),
	})
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func env(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	maxAge, err := strconv.Atoi(env("ASSERTION_KEYS_MAX_AGE", "300"))
	if err != nil {
		log.Fatal(err)
	}
	url := env("ASSERTION_KEYS", "http://127.0.0.1:8080/.well-known/jwks.json")
	// No longer than the answer's own max-age: a key that is withdrawn dies with it.
	override := keyfunc.Override{RefreshInterval: time.Duration(maxAge) * time.Second, HTTPTimeout: 2 * time.Second}
	keys, err := keyfunc.NewDefaultOverrideCtx(context.Background(), []string{url}, override)
	if err != nil {
		log.Fatal(err)
	}
	verifier := &Verifier{keys: keys, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{"ES256"}),
		jwt.WithAudience(env("ASSERTION_AUDIENCE", "orders")),
		jwt.WithIssuer(env("ASSERTION_ISSUER", "clerk-authz")),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(5*time.Second),
	)}
	listener, err := net.Listen("tcp", "127.0.0.1:"+env("PORT", "0"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, verifier))
}
