"""Training clips from videos and photographs."""

from adaptok.data.clips import ClipMixture, ClipShape, ClipSource, FrameCache, ImageFolder, VideoFolder, fixed_clips

__all__ = ["ClipMixture", "ClipShape", "ClipSource", "FrameCache", "ImageFolder", "VideoFolder", "fixed_clips"]
