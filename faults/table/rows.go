package main

// row is one of docs/faults.md, and the tests that try it.
type row struct {
	id, fault string
	// ours are the beginnings of the names of its tests in faults.
	ours []string
	// others are tests of single parts, by package, for what cannot be had with whole processes in short time.
	others map[string][]string
}

var rows = []row{
	{id: "F1", fault: "the API is killed while submissions come in", ours: []string{"TestF01"}},
	{id: "F2", fault: "the API is killed while clients listen and wait", ours: []string{"TestF02"}},
	{id: "F3", fault: "the worker is killed in mid-job", ours: []string{"TestF03"}},
	{id: "F4", fault: "the worker is killed after the GPU's end, before the upload", ours: []string{"TestF04"}},
	{id: "F5", fault: "everything, or a separate Temporal, is killed under load", ours: []string{"TestF05"}},
	{id: "F6", fault: "ComfyUI is killed in mid-job", ours: []string{"TestF06"}},
	{id: "F7", fault: "ComfyUI restarts with an empty queue", ours: []string{"TestF07"}},
	{id: "F8", fault: "the event socket is silent, HTTP works", ours: []string{"TestF08"}},
	{id: "F9", fault: "ComfyUI hangs, with HTTP and without", ours: []string{"TestF09"}},
	{id: "F10", fault: "worker and ComfyUI cannot reach each other", ours: []string{"TestF10"}},
	{id: "F11", fault: "worker and Temporal cannot reach each other", ours: []string{"TestF11"}},
	{id: "F12", fault: "the store is down, hangs, or answers 5xx", ours: []string{"TestF12"},
		others: map[string][]string{"workflows": {"TestStoreAwayForTooLong"}}},
	{id: "F13", fault: "the disk is full", ours: []string{"TestF13"}, others: map[string][]string{"store": {"TestDiskFull"}}},
	{id: "F14", fault: "the same submission again, and another under its key", ours: []string{"TestF14"}},
	{id: "F15", fault: "a webhook's receiver is down, slow, gone, moved or broken; everything is killed meanwhile", ours: []string{"TestF15"},
		others: map[string][]string{"workflows": {"TestWebhookSchedule"}, "api": {"TestWebhookGone"}}},
	{id: "F16", fault: "the worker is paused; clocks differ", ours: []string{"TestF16"}, others: map[string][]string{"api": {"TestLinks"}, "activities": {"TestAWrongClockIsSaidOnce"}}},
	{id: "F17", fault: "cancel: racing the end, a DELETE, in the queue, twice", ours: []string{"TestF17"},
		others: map[string][]string{"internal/app": {"TestDeleteRacesCancel"}}},
	{id: "F18", fault: "Modal takes a container away, or none comes up", ours: []string{"TestF18"}},
	{id: "F19", fault: "the same workflow again, all cached", ours: []string{"TestF19"}},
	{id: "F21", fault: "bodies that are too large, or lie about their size", ours: []string{"TestF21"}},
	{id: "F24", fault: "slow clients", ours: []string{"TestF24"}},
	{id: "F26", fault: "a webhook's address leads into the network here", ours: []string{"TestF26"},
		others: map[string][]string{"internal/webhook": {"TestNoPrivateAddress"}, "internal/outbound": {"TestCheck", "TestDial"}}},
	{id: "F29", fault: "a valid graph that needs more memory than there is", ours: []string{"TestF29"}},
	{id: "F32", fault: "old histories on new code", others: map[string][]string{
		"workflows": {"TestReplayStoredHistories"}, "internal/app": {"TestReplay"}}},
	{id: "strangers", fault: "somebody else locks the database, clears ComfyUI's queue, answers for ComfyUI; two pools of one name",
		ours: []string{"TestStranger", "TestTwinPools"}},
	{id: "load", fault: "many jobs at once, many that wait, one tenant's many; a large result",
		ours: []string{"TestLoad", "TestFairness", "TestManyWaitForABackend", "TestDiskOfAJob", "TestBigResultAtModal"}},
	{id: "backup", fault: "the data folder is lost; a backup is old, damaged or in the wrong place", ours: []string{"TestBackup", "TestRestore"}},
	{id: "upgrade", fault: "comfyd is replaced by another version in mid-job", ours: []string{"TestUpgrade"}},
	{id: "cluster", fault: "docker-compose.yml without its engine: one process after the other killed under load, a rolling upgrade, versions, workers that stop, all lost after a backup; the corpus",
		others: map[string][]string{"internal/cluster": {"TestCluster", "TestClusterCorpus", "TestWorkersStop", "TestVersions"}}},
}
