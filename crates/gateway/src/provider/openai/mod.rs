//! OpenAI's chat completions, which many servers speak: Azure OpenAI, vLLM, Ollama, Groq, OpenRouter.
