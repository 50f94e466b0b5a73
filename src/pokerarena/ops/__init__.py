"""Operations: what a person runs to keep an arena going. An edge: nobody imports it."""
