"""Which keys of checkpoint files and models may differ, and why. Data only.

All patterns are matched at the start of a name below the trunk's prefix (`visual.`,
`backbone.net.`, ...).
"""

# Containers that released and own files wrap the weights in, in the order they are tried.
CONTAINERS: tuple[str, ...] = ("model", "module", "state_dict", "model_ema")

# The key that marks the trunk and so shows the prefix in front of it.
TRUNK_KEY = "patch_embed.proj.weight"

# File keys that a model may lack: pattern -> what is lost by skipping them.
SKIPPABLE: dict[str, str] = {
    r"mask_token$": "pre-training only",
    r"lm_head\.": "pre-training head",
    r"decoder": "pre-training decoder (EVA-L)",
    r"norm\.": "final norm, which this model does not have",
    r"fc_norm\.": "norm of the classification head",
    r"(head|attn_pool|projectors|local_cls_norm)\.|proj$": "head of another task",
    r"cls_token$": "this model has no class token",
    r"register_tokens$": "this model has no registers",
    r"(blocks\.\d+\.attn\.)?(rel_pos_bias\.)?relative_position(_\w+)?_index$": "recomputed",
    r"(spm|interactions|up|norm[1-4])\.|level_embed$": "segmentation adapter",
}

# Complete names in files of CLIP, official ones, open_clip's (`trunk.`) and own: pattern -> what
# other models do without.
OF_CLIP: dict[str, str] = {
    r"visual\.(trunk\.)?head\.": "projection of CLIP, no classifier",
    r"text\.|logit_(scale|bias)$": "text tower of CLIP",
}

# All other names that a ViT has: tokens, norms around the blocks, layer scale, BEiT's table, gated
# MLPs, norms inside of attention and MLP, periods of rotary positions.
TRUNK_MORE = (
    r"cls_token|register_tokens|(norm|norm_pre)\.(weight|bias)|rope_embed\.periods"
    r"|blocks\.\d+\.(gamma_[12]|attn\.relative_position_bias_table"
    r"|attn\.inner_attn_ln\.(weight|bias)|mlp\.(w[123]|ffn_ln)\.(weight|bias))"
)

COMPUTED = "computed"  # by the model, so that a complete file may lack it

# Model keys that a file may lack: pattern -> what they start as.
OPTIONAL: dict[str, str] = {
    r"mask_token$": "initialised",
    r"lm_head\.": "new pre-training head",
    r"norm\.": "new final norm",
    r"rope_embed\.periods$": COMPUTED,
    r"fc_norm\.": "new norm of the head",
    r"head\.": "new head",
    r"blocks\.\d+\.attn\.rel_pos_[hw]$": "zero: no relative position at the start",
    r"blocks\.\d+\.attn\.relative_position_bias_table$": "zero: no relative position at the start",
    r"blocks\.\d+\.gamma_[12]$": "initial layer scale",
}

# All names that detectron2's own ViT has, the qkv bias in both forms.
STOCK_VITDET = (
    r"pos_embed|patch_embed\.proj\.(weight|bias)|blocks\.\d+\.("
    r"norm[12]\.(weight|bias)"
    r"|attn\.(q_bias|v_bias|qkv\.weight|qkv\.bias|proj\.weight|proj\.bias|rel_pos_[hw])"
    r"|mlp\.fc[12]\.(weight|bias))"
)

# Names whose tensors are not weights, so that they may be integers or infinite.
NOT_WEIGHTS = r"(.*\.)?(num_batches_tracked|position_ids|attn_mask|relative_position(_\w+)?_index)"

# Ends of the names of weights, which are floating-point numbers whatever the model is.
WEIGHTS = r".*(weight|bias|scale|pos_embed|_token|gamma_\d|rel_pos_[hw]|bias_table)"

# Parts of a ViT whose tensors have another number of dimensions than 1, below the trunk's prefix.
DIMENSIONS: dict[str, tuple[int, ...]] = {
    r"pos_embed|cls_token|register_tokens|mask_token": (3,),
    r"patch_embed\.proj\.weight": (4, 5),  # 5 in video models
    r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc[12]|w[123]))\.weight": (2,),
    r"blocks\.\d+\.attn\.(rel_pos_[hw]|relative_position_bias_table)": (2,),
}
