package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/comfyd/comfyd/internal/fakeapi"
)

func TestErrorsAndExitCodes(t *testing.T) {
	t.Parallel()
	path := file(t, t.TempDir(), "w.json", workflow)
	for name, test := range map[string]struct {
		script func(*fakeapi.Server)
		args   []string
		code   int
		says   []string
	}{
		"failed job": {
			func(s *fakeapi.Server) { s.Statuses(failed) }, []string{"submit", path}, 1,
			[]string{`Error: the job failed at node 1 "The Sampler" (KSampler): mat1 and mat2 do not fit (node_failed)`},
		},
		"failed job, whose node the server names": {
			func(s *fakeapi.Server) { s.Statuses(strings.Replace(failed, "mat1", "node 1 (KSampler): mat1", 1)) }, []string{"submit", path}, 1,
			[]string{`Error: the job failed at node 1 "The Sampler" (KSampler): mat1 and mat2 do not fit (node_failed)`},
		},
		"failed job, without the graph": {
			func(s *fakeapi.Server) { s.Statuses(failed) }, []string{"status", "job-1", "--wait"}, 1,
			[]string{`Error: the job failed at node 1: mat1 and mat2 do not fit (node_failed)`},
		},
		"node errors": {
			func(s *fakeapi.Server) {
				s.Next("POST /submit_workflow", fakeapi.Answer(400, `{"error":"ComfyUI would refuse it.","code":"invalid_workflow","node_errors":{
					"10":{"class_type":"Gone","errors":[{"message":"Unknown \u001b[2Jclass","details":""}]},
					"9":{"class_type":"SaveImage","errors":[{"message":"Required input is missing","details":"images"},{"message":"Two","details":"lines\nhere"}]}}}`))
			}, []string{"submit", path}, 2,
			[]string{"Error: ComfyUI would refuse it. (HTTP 400)\n  node 9 (SaveImage): Required input is missing: images\n" +
				"  node 9 (SaveImage): Two: lines here\n  node 10 (Gone): Unknown  [2Jclass"},
		},
		"node errors that the message says, too": {
			func(s *fakeapi.Server) {
				s.Next("POST /submit_workflow", fakeapi.Answer(400, `{"error":"ComfyUI cannot run this workflow. Unknown class. Required input is missing.","code":"invalid_workflow",
					"node_errors":{"10":{"class_type":"SaveImage","errors":[{"message":"Required input is missing","details":"images"}]},
					"9":{"class_type":"Gone","errors":[{"message":"Unknown class","details":""}]}}}`))
			}, []string{"submit", path}, 2,
			[]string{"Error: ComfyUI cannot run this workflow. (HTTP 400)\n  node 9 (SaveImage): Unknown class\n  node 10 (SaveImage): Required input is missing: images\n"},
		},
		"node errors, and nothing else": {
			func(s *fakeapi.Server) {
				s.Next("POST /submit_workflow", fakeapi.Answer(400, `{"error":"Unknown class.","code":"invalid_workflow",
					"node_errors":{"9":{"class_type":"Gone","errors":[{"message":"Unknown class","details":""}]}}}`))
			}, []string{"submit", path}, 2, []string{"Error: The workflow cannot run. (HTTP 400)\n  node 9 (SaveImage): Unknown class\n"},
		},
		"a file that cannot be used": {
			func(s *fakeapi.Server) { s.Next("POST /inputs", fakeapi.Answer(422, `{"error":"The file is empty."}`)) },
			[]string{"submit", path, "--image", "a.png=" + path}, 2, []string{"cannot upload a.png: The file is empty."},
		},
		"no key": {
			func(s *fakeapi.Server) { s.Key = "other" }, []string{"submit", path}, 4,
			[]string{"Error: This key is not known. (HTTP 401); give a key with --key or COMFYD_API_KEY"},
		},
		"forbidden":  {func(s *fakeapi.Server) { s.Next("POST", fakeapi.Answer(403, `{"error":"no"}`)) }, []string{"cancel", "job-1"}, 4, nil},
		"unknown id": {nil, []string{"status", "nope"}, 2, []string{"Error: Call ID not found or invalid. (HTTP 404)"}},
		"several, of which the first decides": {
			func(s *fakeapi.Server) {
				s.Next("GET", fakeapi.Answer(404, `{"error":"Call ID not found or invalid.","code":"not_found"}`))
				s.Statuses(failed)
			}, []string{"outputs", "nope", "job-1"}, 2, []string{"Call ID not found", "mat1 and mat2"},
		},
		"several, the first of which is a failed job": {
			func(s *fakeapi.Server) {
				s.Next("GET", fakeapi.Answer(200, failed), fakeapi.Answer(404, `{"error":"Call ID not found or invalid.","code":"not_found"}`))
			}, []string{"outputs", "job-1", "nope"}, 1, []string{"Call ID not found", "mat1 and mat2"},
		},
		"limit": {
			func(s *fakeapi.Server) {
				s.Next("GET", fakeapi.Answer(429, `{"error":"60 requests a minute are allowed"}`, "Retry-After: 60"))
			}, []string{"status", "job-1"}, 3, []string{"60 requests a minute"},
		},
		"fault": {
			func(s *fakeapi.Server) {
				s.Next("GET", fakeapi.Answer(500, `{"error":"a fault"}`, "Retry-After: 60", "X-Request-Id: r9"))
			}, []string{"status", "job-1"}, 3, []string{"a fault (HTTP 500, request r9)"},
		},
		"missing file":      {nil, []string{"submit", "nope.json"}, 2, []string{"cannot read the workflow", "nope.json"}},
		"not JSON":          {nil, []string{"submit", file(t, t.TempDir(), "bad.json", "{\n\"a\": NaN}")}, 2, []string{"bad.json is not JSON: line 2"}},
		"half JSON":         {nil, []string{"submit", file(t, t.TempDir(), "half.json", `{"a":`)}, 2, []string{"half.json is not JSON: line 1"}},
		"no file":           {nil, []string{"submit"}, 2, []string{"give one workflow file", "comfyd submit --help"}},
		"no id":             {nil, []string{"cancel", "a", "b"}, 2, []string{"give one job id"}},
		"unknown flag":      {nil, []string{"status", "--nope"}, 2, []string{"unknown flag: --nope"}},
		"metadata":          {nil, []string{"submit", path, "--metadata", "x"}, 2, []string{"KEY=VALUE"}},
		"image":             {nil, []string{"submit", path, "--image", "x"}, 2, []string{"NAME=PATH"}},
		"image not there":   {nil, []string{"submit", path, "--image", "x=/nope"}, 2, []string{"/nope"}},
		"image is a folder": {nil, []string{"submit", path, "--image", "x=" + t.TempDir()}, 2, []string{"is not a file"}},
		"timeout":           {nil, []string{"submit", path, "--timeout", "-1s"}, 2, []string{"--timeout"}},
		"url":               {nil, []string{"status", "x", "--url", "ftp://h"}, 2, []string{"--url"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fakeapi.New(t)
			if test.script != nil {
				test.script(s)
			}
			sh := newShell(t, s)
			sh.vars["COMFYD_API_KEY"] = "secret"
			require.Equal(t, test.code, sh.run(test.args...), sh.err.String())
			require.Empty(t, sh.out.String())
			for _, want := range test.says {
				require.Contains(t, sh.err.String(), want)
			}
			require.NotContains(t, sh.err.String(), "Usage:")
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	s.Stop()
	sh := newShell(t, s)
	began := time.Now()
	require.Equal(t, 3, sh.run("status", "job-1"))
	require.Less(t, time.Since(began), 40*time.Second, "it tries for ten seconds")
	require.Len(t, sh.err.lines(), 2, "a repeated failure is told once, and at the end")
	require.Contains(t, sh.err.String(), "is it running")
}

func TestHelp(t *testing.T) {
	t.Parallel()
	s := fakeapi.New(t)
	commands := Commands(Env{})
	for _, c := range commands {
		commands = append(commands, c.Commands()...)
	}
	for _, c := range commands {
		if c.HasSubCommands() {
			continue
		}
		sh := newShell(t, s)
		path := append(strings.Fields(strings.TrimPrefix(c.CommandPath(), "comfyd ")), "--help")
		require.Equal(t, 0, sh.run(path...))
		for _, want := range []string{"Exit codes:", "130  interrupted", "Examples:", "--url", "--json"} {
			require.Contains(t, sh.out.String(), want, path)
		}
	}
	require.Equal(t, 1, ExitCode(errors.New("a disk")))
}
