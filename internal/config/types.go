package config

import (
	"errors"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// Duration is a time.Duration that may be given in days, too: "7d", "36h", "90s".
type Duration time.Duration

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseFloat(days, 64); err == nil {
			*d = Duration(n * 24 * float64(time.Hour))
			return nil
		}
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("a time such as 90s, 30m, 12h or 7d")
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes: "100MiB", "1GiB", "65536".
type Size int64

// UnmarshalText reads a size.
func (z *Size) UnmarshalText(text []byte) error {
	n, err := units.RAMInBytes(string(text))
	if err != nil || n <= 0 {
		return errors.New("a size such as 100MiB or 1GiB")
	}
	*z = Size(n)
	return nil
}

// Prices are US dollars a second, by backend or GPU: "url=0.0002,L40S=0.000542".
type Prices map[string]float64

// UnmarshalText reads prices.
func (p *Prices) UnmarshalText(text []byte) error {
	*p = Prices{}
	for entry := range strings.SplitSeq(string(text), ",") {
		name, price, ok := strings.Cut(strings.TrimSpace(entry), "=")
		n, err := strconv.ParseFloat(price, 64)
		if !ok || name == "" || err != nil || n < 0 || n > 1 {
			return errors.New("US dollars a second for backends or GPUs, such as url=0.0002,L40S=0.000542")
		}
		(*p)[name] = n
	}
	return nil
}

// Networks are written as 10.0.0.0/8,fd00::/8.
type Networks []netip.Prefix

// UnmarshalText reads them.
func (n *Networks) UnmarshalText(text []byte) error {
	*n = nil
	for entry := range strings.SplitSeq(string(text), ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(entry))
		if err != nil {
			return errors.New("networks, such as 10.0.0.0/8,fd00::/8")
		}
		*n = append(*n, p.Masked())
	}
	return nil
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// withoutLogin hides what may be a password, also in what is no address at all.
func withoutLogin(s string) string {
	if i := strings.LastIndex(s, "@"); i >= 0 {
		return "(hidden)@" + s[i+1:]
	}
	return s
}

func abs(path string) string {
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}

// variable is the environment variable behind a field of Config.
func variable(field string) string {
	f, _ := reflect.TypeFor[Config]().FieldByName(field)
	return f.Tag.Get("env")
}
