// Package httpx is HTTP with limits: the only way out for every integration (timeouts, bounded reads, no redirects, no
// secrets in errors, status to outcome), and servers that drain, with bounded connections and certificates that are read again.
//
// A URL is a secret here: a Slack webhook's path is the credential. An error names the method and the host and says
// what went wrong in words of this package; it never carries net/http's own error, which prints the URL. What a
// receiver answers is shown in part, and without what the request held (see [Response.Outcome]).
package httpx
