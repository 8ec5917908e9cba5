"""The Modal app of comfyd: ComfyUI on Modal GPUs. The entry point for Modal is ../modal_comfy_api.py."""
