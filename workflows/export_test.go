package workflows

// StartsAgain is for tests: their environment knows no retry policy of a workflow.
var StartsAgain = startsAgain
