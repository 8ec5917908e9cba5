// Package store keeps bytes under keys: inputs, large graphs and outputs of jobs, which never travel through Temporal's
// history. A store is a folder of ours or a bucket of an object store, told apart by URL; both keep the same promises,
// and one suite of tests holds them to it.
//
// Others do not import this package: they name the few methods they need in an interface of their own, in which only
// the standard library and package comfy occur.
package store
