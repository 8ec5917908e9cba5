module github.com/comfyd/comfyd/comfy

go 1.24
