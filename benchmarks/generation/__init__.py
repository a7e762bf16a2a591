"""Generation beside openvino-genai: the program that runs in that library's own interpreter."""
