package main

import (
	"fmt"
	"time"

	"github.com/valyala/fasthttp"
)

// client calls one server over connections that are kept. It costs about a tenth of what a server does, so that the
// figures are the server's; what it took is in the results.
type client struct {
	host *fasthttp.HostClient
	key  string
}

// reply is an answer, whatever its status.
type reply struct {
	code int
	body []byte
}

// connect makes a client with up to so many connections. Several addresses, separated by commas, take turns.
func connect(addresses, key string, conns int) *client {
	return &client{key: key, host: &fasthttp.HostClient{
		Addr: addresses, MaxConns: conns, MaxConnWaitTimeout: time.Minute, NoDefaultUserAgentHeader: true,
		ReadTimeout: 3 * time.Minute, WriteTimeout: time.Minute, MaxIdemponentCallAttempts: 1,
	}}
}

func (c *client) close() { c.host.CloseIdleConnections() }

// call sends a request; a body is JSON.
func (c *client) call(method, path string, body []byte) (reply, error) {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	defer fasthttp.ReleaseRequest(req)
	defer fasthttp.ReleaseResponse(resp)
	req.Header.SetMethod(method)
	req.SetRequestURI("http://bench" + path)
	if c.key != "" {
		req.Header.Set("Authorization", "Bearer "+c.key)
	}
	if body != nil {
		req.Header.SetContentType("application/json")
		req.SetBodyRaw(body)
	}
	if err := c.host.Do(req, resp); err != nil {
		return reply{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	const small = 64 << 10
	if raw := resp.Body(); len(raw) <= small {
		return reply{resp.StatusCode(), append([]byte(nil), raw...)}, nil
	}
	return reply{resp.StatusCode(), resp.SwapBody(nil)}, nil // ours now: fifty megabytes are not copied
}

// want calls, and takes one status for the answer.
func (c *client) want(code int, method, path string, body []byte) ([]byte, error) {
	r, err := c.call(method, path, body)
	if err != nil {
		return nil, err
	}
	if r.code != code {
		return nil, fmt.Errorf("%s %s: %d %.300s", method, path, r.code, r.body)
	}
	return r.body, nil
}
