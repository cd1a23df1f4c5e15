"""What the server reads and answers: OpenAI's shapes, with the fields that Janus has besides."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = [
    "ChatRequest",
    "Completion",
    "ErrorReply",
    "Health",
    "ImageRequest",
    "ImagesReply",
    "Models",
]

SEEDS = 2**63
Text = Annotated[str, Field(max_length=100_000)]


class _Open(BaseModel):
    """Fields that are not known here are passed over, as other servers of this protocol do."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class ImageRequest(_Open):
    """POST /v1/images/generations."""

    prompt: str = Field(min_length=1, max_length=2000)
    model: str | None = None
    n: int = Field(1, ge=1, le=10)
    size: str | None = Field(None, description="auto, or the one size that the model draws")
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool | None = None
    partial_images: int | None = Field(
        None, ge=0, le=23, description="With stream: pictures that show the rows so far."
    )
    output_format: Literal["png"] | None = None
    seed: int | None = Field(
        None, ge=0, lt=SEEDS - 10, description="Of the first picture; the next ones count on."
    )
    negative_prompt: str | None = Field(None, max_length=2000)
    guidance_scale: float | None = Field(None, ge=1, le=1000, allow_inf_nan=False)
    temperature: float | None = Field(None, ge=0, le=1000, allow_inf_nan=False)
    top_k: int | None = Field(None, ge=0, lt=2**31)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)


class ImageURL(_Open):
    url: str = Field(max_length=28_000_000)
    detail: str | None = None


class TextPart(_Open):
    type: Literal["text"]
    text: Text


class ImagePart(_Open):
    type: Literal["image_url"]
    image_url: ImageURL


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ChatMessage(_Open):
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(max_length=64)] | None = None


class StreamOptions(_Open):
    include_usage: bool | None = None


class ChatRequest(_Open):
    """POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=256)
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=100_000)
    max_completion_tokens: int | None = Field(None, ge=1, le=100_000)
    temperature: float | None = Field(
        None, ge=0, le=1000, allow_inf_nan=False, description="0, the default, is greedy."
    )
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=0, lt=SEEDS - 10)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    # What would change the answer and cannot be had is refused rather than passed over.
    stop: None = None
    tools: None = None
    functions: None = None
    logprobs: Literal[False] | None = None
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _plain_text(self) -> "ChatRequest":
        kind = (self.response_format or {}).get("type", "text")
        if kind != "text":
            raise ValueError("response_format can only be text")
        return self


class ErrorFields(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorReply(BaseModel):
    error: ErrorFields


class TokenDetails(BaseModel):
    text_tokens: int
    image_tokens: int


class ImageUsage(BaseModel):
    """input_tokens: of the prompt's text; output_tokens: one for each image code."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int


class ImageData(BaseModel):
    b64_json: str | None = None
    url: str | None = None
    seed: int


class ImagesReply(BaseModel):
    created: int
    data: list[ImageData]
    output_format: Literal["png"] = "png"
    size: str
    usage: ImageUsage


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "janus_kit"


class Models(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Health(BaseModel):
    status: Literal["ok", "stopping"]
    model: str
    waiting: int
    busy: bool


class Answer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str


class Choice(BaseModel):
    index: int = 0
    message: Answer
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
