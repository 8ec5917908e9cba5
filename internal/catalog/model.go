package catalog

// modelFolders says in which folder of models/ the files lie that an input of ComfyUI's own loaders lists. The class
// "" stands for every class that has an input of that name.
var modelFolders = map[[2]string]string{
	{"", "ckpt_name"}:                          "checkpoints",
	{"", "vae_name"}:                           "vae",
	{"", "lora_name"}:                          "loras",
	{"", "unet_name"}:                          "diffusion_models (or unet)",
	{"", "clip_name1"}:                         "text_encoders (or clip)",
	{"", "clip_name2"}:                         "text_encoders (or clip)",
	{"", "clip_name3"}:                         "text_encoders (or clip)",
	{"", "clip_name4"}:                         "text_encoders (or clip)",
	{"", "control_net_name"}:                   "controlnet",
	{"", "style_model_name"}:                   "style_models",
	{"", "gligen_name"}:                        "gligen",
	{"", "hypernetwork_name"}:                  "hypernetworks",
	{"", "photomaker_model_name"}:              "photomaker",
	{"", "audio_encoder_name"}:                 "audio_encoders",
	{"CLIPLoader", "clip_name"}:                "text_encoders (or clip)",
	{"CLIPVisionLoader", "clip_name"}:          "clip_vision",
	{"UpscaleModelLoader", "model_name"}:       "upscale_models",
	{"LatentUpscaleModelLoader", "model_name"}: "latent_upscale_models",
	{"ModelPatchLoader", "name"}:               "model_patches",
	{"DiffusersLoader", "model_path"}:          "diffusers",
}

// modelFolder is the folder for an input, "" where it is none that we know.
func modelFolder(class, input string) string {
	if f := modelFolders[[2]string{class, input}]; f != "" {
		return f
	}
	return modelFolders[[2]string{"", input}]
}
