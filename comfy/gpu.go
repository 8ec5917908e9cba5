package comfy

import "regexp"

var gpuName = regexp.MustCompile(`^[A-Za-z0-9-]{1,32}[!+]?(:[1-8])?$`)

// ValidGPU tells whether s can be the name of a GPU that a job asks for: as Modal spells them, with a count
// ("H100", "A100-80GB", "H100!", "L40S:2").
func ValidGPU(s string) bool { return gpuName.MatchString(s) }
