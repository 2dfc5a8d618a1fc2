"""Text encoders, by class: where each keeps the neurons of the site kind "text".

A site is the second Linear of a feed-forward: `mlp.fc2` of CLIP and OpenCLIP, `DenseReluDense.wo` of T5.
"""

TEXT_PATTERNS: dict[str, str] = {
    "CLIPTextModel": r"\.mlp\.fc2$",
    "CLIPTextModelWithProjection": r"\.mlp\.fc2$",
    "T5EncoderModel": r"\.DenseReluDense\.wo$",
}
