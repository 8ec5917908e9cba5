"""Graphs in ComfyUI's API format, of its own nodes, so that they run without a model and without a GPU."""


def node(class_type, **inputs):
    return {"class_type": class_type, "inputs": inputs}


def clouds(seed, detail):
    """Draws one candidate."""
    return {
        "1": node("EmptyImage", width=256, height=256, batch_size=1, color=3368601),
        "2": node("ImageAddNoise", image=["1", 0], seed=seed, strength=detail),
        "3": node("ImageBlur", image=["2", 0], blur_radius=2, sigma=1.0),
        "4": node("SaveImage", images=["3", 0], filename_prefix="candidate"),
    }


def upscale(size):
    """Reads the file that the job calls picked.png."""
    return {
        "1": node("LoadImage", image="picked.png"),
        "2": node("ImageScale", image=["1", 0], upscale_method="lanczos", width=size, height=size, crop="disabled"),
        "3": node("SaveImage", images=["2", 0], filename_prefix=f"x{size}"),
    }


def broken():
    """Passes every check, and fails on the GPU: its decoder makes 16 channels, which no picture has."""
    return {
        "1": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "2": node("VAELoader", vae_name="pixel_space"),
        "3": node("VAEDecode", samples=["1", 0], vae=["2", 0]),
        "4": node("SaveImage", images=["3", 0], filename_prefix="broken"),
    }


def poster(number, steps=8):
    """Takes a CPU a while, in small steps between which it can be stopped."""
    graph = {
        "in": node("LoadImage", image="picked.png"),
        "scale": node(
            "ImageScale", image=["in", 0], upscale_method="bicubic", width=768, height=768 + number, crop="disabled"
        ),
    }
    last = "scale"
    for i in range(steps):
        graph[f"blur{i}"] = node("ImageBlur", image=[last, 0], blur_radius=8, sigma=0.5)
        last = f"blur{i}"
    graph["out"] = node("SaveImage", images=[last, 0], filename_prefix="poster")
    return graph
