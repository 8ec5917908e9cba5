// Package openapi is the description of the HTTP API, in OpenAPI 3.1. It is written by hand, a subject a file, and put
// together when a server starts; api's tests hold every route, request and answer to it.
package openapi

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"go.yaml.in/yaml/v3"
)

//go:embed *.yaml
var files embed.FS

const (
	// head is the file that begins the description.
	head = "openapi.yaml"
	// everywhere is the part of the head with the answers that all operations have.
	everywhere = "x-everywhere"
	// thisServer stands where each client finds the address by which it has reached the server.
	thisServer = "set-when-it-is-served"
)

// Description is the API's, as JSON.
type Description struct{ before, after []byte } // the address of the server

var whole = sync.OnceValues(read)

// New makes the description that a server of this version gives, which does not serve the paths that are absent.
func New(version string, absent ...string) (*Description, error) {
	read, err := whole()
	if err != nil {
		return nil, err
	}
	doc := &yaml.Node{Kind: yaml.MappingNode, Content: slices.Clone(read.Content)} // what is in it is shared
	paths := &yaml.Node{Kind: yaml.MappingNode, Content: slices.Clone(entry(doc, "paths").Content)}
	for _, path := range absent {
		dropEntry(paths, path)
	}
	setEntry(doc, "paths", paths)
	setEntry(doc, "info", with(entry(doc, "info"), "version", version))
	server := with(&yaml.Node{Kind: yaml.MappingNode}, "url", thisServer)
	setEntry(doc, "servers", &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{server}})
	var out bytes.Buffer
	if err := writeNode(&out, doc); err != nil {
		return nil, fmt.Errorf("write the description of the API: %w", err)
	}
	before, after, _ := bytes.Cut(out.Bytes(), []byte(`"`+thisServer+`"`))
	return &Description{before, after}, nil
}

// JSON is the description for a client that has reached the server at this address.
func (d *Description) JSON(server string) ([]byte, error) {
	address, err := json.Marshal(server)
	if err != nil {
		return nil, fmt.Errorf("write the server's address: %w", err)
	}
	return slices.Concat(d.before, address, d.after), nil
}

// read puts the files together: the head, and the others in the order of their names.
func read() (*yaml.Node, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("read the description of the API: %w", err)
	}
	names := []string{head}
	for _, e := range entries {
		if e.Name() != head {
			names = append(names, e.Name())
		}
	}
	doc := &yaml.Node{Kind: yaml.MappingNode}
	for _, name := range names {
		raw, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read the description of the API: %w", err)
		}
		var part yaml.Node
		if err := yaml.Unmarshal(raw, &part); err != nil {
			return nil, fmt.Errorf("read the description of the API: %s: %w", name, err)
		}
		if err := merge(doc, plain(part.Content[0]), ""); err != nil {
			return nil, fmt.Errorf("read the description of the API: %s: %w", name, err)
		}
	}
	answers := entry(doc, everywhere)
	dropEntry(doc, everywhere)
	for _, item := range values(entry(doc, "paths")) {
		for _, operation := range values(item) {
			addMissing(entry(operation, "responses"), answers)
		}
	}
	return doc, nil
}
